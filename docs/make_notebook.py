"""Makes the picture of ``notebooks.md``: runs a notebook, and draws its cells as a page.

Needs Chromium, nbclient and ipykernel, ``pip install "deepepochs[examples]"``, and a minute::

    python docs/make_notebook.py            # imgs/notebook.png
    python docs/make_notebook.py /tmp/look  # pages and pictures, light and dark, wide and narrow
"""

from __future__ import annotations

import html
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from make_screenshots import take_picture
from nbclient import NotebookClient

TARGET = Path(__file__).parent / "imgs"

SET_UP = """\
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split
from deepepochs import InterpretCallback, Trainer, set_seed
from deepepochs.cli.demo import load_digits
from deepepochs.metrics import accuracy

set_seed(0)
sets = random_split(TensorDataset(*load_digits()), [3000, 1000, 1000])
train_dl, val_dl, test_dl = (DataLoader(data, 32, shuffle=i == 0) for i, data in enumerate(sets))

def digits(**options):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
    model(torch.zeros(1, 1, 28, 28))
    return Trainer(model, F.cross_entropy, torch.optim.Adam(model.parameters(), 1e-3),
                   metrics=accuracy, **options)
"""
SHOWN = [
    "trainer = digits(epochs=8, running_id='digits')\nhistory = trainer.fit(train_dl, val_dl)",
    "history",
    "trainer.test(test_dl)",
]
MORE = [
    "trainer",
    "digits().find_lr(train_dl)",
    "worst = InterpretCallback(nn.CrossEntropyLoss(reduction='none'), image_data=True)\n"
    "other = digits(epochs=2, callbacks=worst)\n"
    "other.fit(train_dl)\n"
    "other.test(test_dl)\n"
    "worst.plot_confusion()",
    "worst.plot_top(8)",
    "history.plot()",
    "from deepepochs import Callback\n"
    "class Interrupt(Callback):\n"
    "    def on_after_train_batch(self, trainer, **others):\n"
    "        if trainer.progress.num_train_batches == 250:\n"
    "            raise KeyboardInterrupt\n"
    "digits(epochs=5, callbacks=Interrupt()).fit(train_dl, val_dl)",
    "digits(epochs=40, show_info=False).fit(DataLoader(sets[2], 500), test_dl)",
]

STYLE = """
:root { color-scheme: light; --back: #fff; --text: #000000de; --code: #f5f5f5; --edge: #e0e0e0;
  --row: #f5f5f5; --mark: #307fc1 }
.dark { color-scheme: dark; --back: #111; --text: #ffffffde; --code: #212121; --edge: #424242;
  --row: #212121; --mark: #64b5f6 }
* { box-sizing: border-box }
body { margin: 0; padding: 14px; background: var(--back); color: var(--text);
  font: 13px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif }
.cell { display: flex; gap: 8px; margin: 0 0 6px }
.mark { flex: 0 0 44px; text-align: right; color: var(--mark); font: 12px/1.7 monospace }
.cell > :last-child { flex: 1; min-width: 0; overflow-x: auto }
pre { margin: 0; font: 13px/1.4 "DejaVu Sans Mono",Consolas,monospace; white-space: pre-wrap }
.in pre { background: var(--code); border: 1px solid var(--edge); padding: 5px 8px }
.out { padding: 2px 8px } img { max-width: 100%; height: auto }
.error { background: #f443361a; padding: 4px 8px }
tbody tr:nth-child(odd) { background: var(--row) }
@media (max-width: 600px) { .mark { display: none } }
"""


def run(cells: list[str], folder: Path) -> Any:
    """Run a notebook; its errors are outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, allow_errors=True, resources=place).execute()
    return notebook


def page(cells: list[Any], kind: str = "") -> str:
    """Draw cells roughly as JupyterLab does."""
    parts = []
    for number, cell in enumerate(cells, start=1):
        code = f"<pre>{html.escape(cell.source)}</pre>"
        parts.append(f'<div class="cell in"><div class="mark">[{number}]:</div>{code}</div>')
        for output in cell.outputs:
            is_value = output.output_type == "execute_result"
            mark = f"[{number}]:" if is_value else ""
            shown = f'<div class="out">{drawn(output)}</div>'
            parts.append(f'<div class="cell"><div class="mark">{mark}</div>{shown}</div>')
    return (
        f'<!doctype html><html class="{kind}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><body>{''.join(parts)}"
    )


def drawn(output: Any) -> str:
    """Return the richest form of an output, as a front end chooses it."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text)}</pre>"
    if output.output_type == "error":
        text = f"{output.ename}: {output.evalue}"
        return f'<pre class="error">{html.escape(text)}</pre>'
    data = output.data
    if "text/html" in data:
        return str(data["text/html"])
    if "image/png" in data:
        size = output.metadata.get("image/png", {})
        width = f' width="{size["width"]}"' if "width" in size else ""
        return f'<img{width} src="data:image/png;base64,{data["image/png"].strip()}">'
    return f"<pre>{html.escape(data['text/plain'])}</pre>"


def main() -> None:
    """Make the picture, or pages and pictures to look at."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        look = Path(sys.argv[1]) if sys.argv[1:] else None
        _, *cells = run([SET_UP, *SHOWN, *(MORE if look else [])], folder).cells
        file = folder / "page.html"
        if look is None:
            file.write_text(page(cells), encoding="utf-8")
            take_picture(file, TARGET / "notebook.png", 980, 900)
            return
        look.mkdir(parents=True, exist_ok=True)
        for kind in ("light", "dark"):
            target = look / f"{kind}.html"
            target.write_text(page(cells, kind), encoding="utf-8")
            for width in (1400, 390):
                take_picture(target, look / f"{kind}{width}.png", width, 5200)


if __name__ == "__main__":
    main()
