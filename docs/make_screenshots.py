"""Makes the pictures of the pages: trains on digits, writes the reports, looks at them.

``report.png`` is the page on a run, ``runs.png`` the comparison of runs, ``phone.png`` both on a
phone. Needs Chromium, ``pip install "deepepochs[examples]"``, and about a minute::

    python docs/make_screenshots.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import CheckCallback, InterpretCallback, Optimizer, ReportCallback, Trainer
from deepepochs.cli.demo import load_digits
from deepepochs.metrics import accuracy
from deepepochs.report import compare_page
from deepepochs.rng import set_seed
from deepepochs.runs.record import list_runs

TARGET = Path(__file__).resolve().parent / "imgs"
EPOCHS = 14
NUM_COLOURS = 256
RUNS = ((1e-2, 64), (3e-3, 64), (1e-3, 64), (3e-3, 16), (3e-4, 16))  # rates and hidden sizes
PHONE = (390, 844)  # pixels


def train(folder: Path, lr: float, hidden: int) -> Path:
    """Train one run and give its report."""
    set_seed(0)
    images, labels = load_digits()
    train_set, val_set, test_set = random_split(TensorDataset(images, labels), [3000, 1000, 1000])
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 14 * 14, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 10),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS)
    worst = InterpretCallback(nn.CrossEntropyLoss(reduction="none"), k=16, log_dir=folder)
    trainer = Trainer(
        model,
        F.cross_entropy,
        Optimizer(adam, schedule),
        epochs=EPOCHS,
        metrics=accuracy,
        running_id=f"digits-lr{lr}-hidden{hidden}",
        hyper_params={"lr": lr, "hidden": hidden, "dropout": 0.3},
        callbacks=[
            CheckCallback("accuracy", mode="max", ckpt_dir=folder),
            worst,
            ReportCallback(folder),
        ],
    )
    trainer.fit(DataLoader(train_set, 64, shuffle=True), DataLoader(val_set, 500))
    trainer.test(DataLoader(test_set, 500))
    return trainer.run_dir / "report.html"


def take_picture(page: Path, target: Path, width: int, height: int) -> None:
    """Have Chromium draw a page, in a small file."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("Chromium is not installed.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
                f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
    with_few_colours(Image.open(target).convert("RGB")).save(target, optimize=True)


def with_few_colours(picture: Image.Image) -> Image.Image:
    """Keep the most frequent colours, for a third of the size.

    Pillow's own methods mix colours, which changes those of thin lines.
    """
    pixels = np.asarray(picture)
    found = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    colours, where, counts = found
    kept = colours[np.argsort(-counts)[:NUM_COLOURS]]
    nearest = np.abs(colours[:, None].astype(int) - kept).sum(-1).argmin(1)
    few = Image.fromarray(nearest[where].astype(np.uint8).reshape(pixels.shape[:2]))
    few.putpalette(kept.tobytes())
    return few


def phones(pages: list[Path], target: Path) -> Path:
    """Write a page with other pages side by side, each as wide as a phone; return its path.

    Chromium's own window has at least 500 pixels.
    """
    width, height = PHONE
    frames = "".join(
        f'<iframe src="{page.as_uri()}" width="{width}" height="{height}"></iframe>'
        for page in pages
    )
    style = "body{margin:0;display:flex;gap:12px;background:#8a93a0} iframe{border:0}"
    target.write_text(f"<!DOCTYPE html><style>{style}</style>{frames}", encoding="utf-8")
    return target


def main() -> None:
    """Make the pictures."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)  # the pages have no path of this machine
        folder = Path(temporary) / "logs"
        pages = [train(Path("logs"), lr, hidden) for lr, hidden in RUNS]
        take_picture(pages[0], TARGET / "report.png", 1120, 1760)
        compared = folder / "report.html"
        compared.write_text(compare_page(list_runs(folder), "Runs in logs"), encoding="utf-8")
        take_picture(compared, TARGET / "runs.png", 1280, 1780)
        both = phones([pages[0], compared], folder / "phones.html")
        take_picture(both, TARGET / "phone.png", 2 * PHONE[0] + 12, PHONE[1])


if __name__ == "__main__":
    main()
