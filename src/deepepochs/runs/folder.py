"""Makes and checks the id of a run, which names its folder: ``<ckpt_dir>/<running_id>``."""

from __future__ import annotations

import operator
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ConfigTypeError

_MAX_ID_BYTES = 200
# Separators, drives and streams of Windows, control characters.
_FORBIDDEN = re.compile(r"[/\\:\x00-\x1f\x7f]")


# 64 of each, so that a byte draws each of them equally often.
_ADJECTIVES = (
    "amber", "ample", "azure", "bold", "brave", "bright", "brisk", "calm", "candid", "clear",
    "clever", "crisp", "curious", "deft", "eager", "early", "fair", "fleet", "fond", "fresh",
    "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat",
    "nimble", "noble", "patient", "placid", "polite", "quick", "quiet", "rapid", "ready", "serene",
    "sharp", "silver", "smart", "snug", "solid", "steady", "sunny", "swift", "tidy", "vivid",
    "warm", "wise", "witty", "zesty",
)  # fmt: skip
_ANIMALS = (
    "badger", "bee", "bison", "canary", "cheetah", "condor", "crane", "cricket", "dolphin", "dove",
    "eagle", "egret", "elk", "falcon", "finch", "firefly", "fox", "gazelle", "gecko", "goose",
    "hare", "hawk", "hedgehog", "heron", "horse", "ibex", "ibis", "kestrel", "kiwi", "koala",
    "lark", "lemur", "leopard", "lion", "llama", "lynx", "magpie", "marlin", "marmot", "marten",
    "moose", "newt", "nightingale", "ocelot", "orca", "oriole", "osprey", "otter", "owl", "panda",
    "pelican", "penguin", "plover", "puffin", "puma", "quail", "raven", "robin", "salmon", "seal",
    "sparrow", "starling", "swan", "turtle",
)  # fmt: skip


def new_running_id(parents: Iterable[Path] = ()) -> str:
    """Make an id that can be read: date, time and two words, as ``2026-11-25_2136_brave-otter``.

    No file or folder in ``parents`` has this name. The system draws the words, so no random
    state of the run changes.
    """
    now, parents = time.strftime("%Y-%m-%d_%H%M"), list(parents)
    for _ in range(100):
        first, second = os.urandom(2)
        name = f"{now}_{_ADJECTIVES[first % len(_ADJECTIVES)]}-{_ANIMALS[second % len(_ANIMALS)]}"
        if not any((parent / name).exists() for parent in parents):
            return name
    return f"{name}-{os.urandom(4).hex()}"  # there are thousands of runs of this minute


def check_running_id(running_id: Any) -> str:
    """Return `running_id`, a string or an integer, as the name of a folder.

    Raises:
        ConfigTypeError: it is of another type.
        ConfigError: it is empty or too long, or could lead out of the folder of the runs.
    """
    if isinstance(running_id, str):
        name = str(running_id)
    else:
        number: Any = None if isinstance(running_id, bool) else running_id
        try:
            name = str(operator.index(number))
        except TypeError:
            raise ConfigTypeError(
                f"running_id is {running_id!r}, a {type(running_id).__name__}: "
                "give a string or an integer"
            ) from None
    fault = _fault(name)
    if fault:
        raise ConfigError(
            f"running_id {name!r:.80} {fault}: it names one folder inside ckpt_dir; "
            "use letters, digits, '-', '_' and '.'"
        )
    return name


def run_folder(ckpt_dir: str | os.PathLike[str], running_id: Any) -> Path:
    """Return the folder of a run, which may be missing yet; raises as `check_running_id`."""
    return Path(ckpt_dir) / check_running_id(running_id)


def _fault(name: str) -> str:
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "is no name of a folder"
    if _FORBIDDEN.search(name):
        return "holds a separator, a colon or a control character"
    if name != name.strip() or name.endswith("."):  # Windows drops these
        return "begins or ends with a blank, or ends with a dot"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    return f"is longer than {_MAX_ID_BYTES} bytes" if size > _MAX_ID_BYTES else ""
