"""Drives a headless Chromium by the W3C WebDriver protocol, with the standard library alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
# Not through a proxy that the environment may name: the driver is on this machine.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def find_browser() -> tuple[str, str] | None:
    """Chromium and its driver; ``None`` where either is missing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One window of the browser."""

    def __init__(self, address: str) -> None:
        self._address = address

    def send(self, method: str, path: str, **content: Any) -> Any:
        """Send a command of the protocol; return its value."""
        body = json.dumps(content).encode() if method == "POST" else None
        request = urllib.request.Request(f"{self._address}{path}", body, method=method)
        try:
            with DIRECT.open(request, timeout=LIMIT_S) as reply:
                return json.loads(reply.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"]) from None

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.send("POST", "/url", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script's body in the page; return what it returns."""
        return self.send("POST", "/execute/sync", script=script, args=list(arguments))

    def log(self, kind: str) -> list[Any]:
        """Take what the console (``browser``) or the network (``performance``) has said."""
        return list(self.send("POST", "/se/log", type=kind))

    def errors(self) -> list[str]:
        """What the console has said in anger."""
        return [entry["message"] for entry in self.log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """The addresses that were asked for, but those that carry their content."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("data:", "chrome"))]

    def emulate(self, **features: str) -> None:
        """Set media features such as ``prefers_color_scheme="dark"``."""
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=listed)

    def resize(self, width: int, height: int) -> None:
        """Make the page that large, as on a phone, in pixels of the page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)

    def cdp(self, command: str, **params: Any) -> Any:
        """Send a command of Chromium's own protocol."""
        return self.send("POST", "/goog/cdp/execute", cmd=command, params=params)


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, which is closed at the end."""
    found = find_browser()
    assert found is not None
    driver = subprocess.Popen(
        [found[1], "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert driver.stdout is not None
    try:
        line = next(text for text in driver.stdout if "successfully on port" in text)
        server = Browser(f"http://127.0.0.1:{int(line.rstrip('. ' + chr(10)).split()[-1])}")
        options = {
            "binary": found[0],
            "args": [*ARGUMENTS, f"--user-data-dir={profile}"],
        }
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = server.send("POST", "/session", capabilities={"alwaysMatch": wanted})
        browser = Browser(f"{server._address}/session/{session['sessionId']}")
        try:
            yield browser
        finally:
            browser.send("DELETE", "")
    finally:
        driver.terminate()
        driver.stdout.close()
        driver.wait()
