"""Notebooks: one is run in a real kernel, without any magic, and its outputs are looked at."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import deepepochs

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

RUNNER = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=240, startup_timeout=240, allow_errors=True).execute()
nbformat.write(notebook, sys.argv[1])
"""

CELLS = {
    "set_up": """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from deepepochs import *
from deepepochs.metrics import accuracy

torch.manual_seed(0)
targets = torch.randint(3, (96,))
images = torch.randn(96, 1, 5, 5)
images[range(96), 0, targets, 0] += 4
data = TensorDataset(images, targets)
train_dl, val_dl = DataLoader(data, 8, shuffle=True), DataLoader(data, 48)

def make(**options):
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    options = {'metrics': accuracy, 'epochs': 3, **options}
    return Trainer(model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), **options)

class At(Callback):
    def __init__(self, batch, error):
        super().__init__()
        self.batch, self.error = batch, error
    def on_after_train_batch(self, trainer, **others):
        if trainer.progress.num_train_batches == self.batch:
            raise self.error
""",
    "fit": "trainer = make(running_id='first')\nhistory = trainer.fit(train_dl, val_dl)",
    "history": "history",
    "test": "trainer.test(val_dl)",
    "trainer": "trainer",
    "find_lr": "curve = make().find_lr(train_dl)\ncurve",
    # Nothing has shown a figure before, as in a new notebook.
    "plot": "history.plot()",
    "curve_plot": "curve.plot()",
    "plot_not_last": "history.plot(['loss'])\n'something else'",
    "plot_kept": "figure = history.plot(['loss'])\nfigure.savefig('kept.png')",
    "kept": "figure.axes[0].set_title('kept')\nfigure",
    "show": "import matplotlib.pyplot as plt\nhistory.plot()\nplt.show()",
    "own_plot": "plt.plot([1, 2])\nhistory.plot()",
    "interpret": """
worst = InterpretCallback(nn.CrossEntropyLoss(reduction='none'), k=4, image_data=True)
other = make(epochs=1, show_info=False, callbacks=worst)
other.fit(train_dl)
_ = other.test(val_dl)
""",
    "confusion": "worst.plot_confusion()",
    "confusion_not_shown": "worst.plot_confusion(show=False)",
    "top": "worst.plot_top()",
    "plot_confusion": "plot_confusion(worst.confusion_matrix, 3)",
    "lr_callback": "make(callbacks=LRFindCallback(max_batch=30), show_info=False).fit(train_dl)\n0",
    "inline": "%matplotlib inline\nhistory.plot()",
    "svg": "%config InlineBackend.figure_formats = ['svg']\nhistory.plot()",
    "agg": "plt.switch_backend('agg')\nhistory.plot()",
    "open_figures": "print(plt.get_fignums())",
    "value_of_fit": "trainer.fit(train_dl, val_dl, epochs=1)",
    "run_again": "trainer.fit(train_dl, val_dl, epochs=1)",
    "interrupt": "make(callbacks=At(18, KeyboardInterrupt())).fit(train_dl, val_dl)",
    "after_interrupt": "make(epochs=1, show_info=False).fit(train_dl)\n0",
    "error": "make(callbacks=At(5, ValueError('mine'))).fit(train_dl, val_dl)",
    "long": "make(epochs=60, show_info=False).fit(DataLoader(data, 48))\n0",
    "rows": "make(epochs=2, console='rows', show_info=False).fit(train_dl, val_dl)\n0",
    "off": "make(epochs=2, console='off').fit(train_dl, val_dl)\n0",
    "escaped": """
@rename('<b>&')
def bold(preds, targets):
    return 1.0
tasks = [EpochTask(val_dl, name='<i>'), EpochTask(val_dl, name='plain')]
made = make(epochs=2, show_info=False, metrics=bold)
history = made.fit(train_dl, val_tasks=tasks)
display(history)
made.test(tasks=tasks)
""",
    "prints": "make(epochs=1, show_info=False, callbacks=worst).print('a', 1)",
    "redirected": """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as file:
    make(epochs=1, show_info=False).fit(train_dl)
print(file.getvalue())
""",
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell of a notebook that was run once, from top to bottom."""
    nbformat = pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("notebook")
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code.strip()) for code in CELLS.values()]
    )
    nbformat.write(made, folder / "run.ipynb")
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    source = str(Path(deepepochs.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    environment["OMP_NUM_THREADS"] = "1"
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        environment[name] = str(folder / name)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, "run.ipynb"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not done.returncode, done.stderr
    cells = json.loads((folder / "run.ipynb").read_text(encoding="utf-8"))["cells"]
    return dict(zip(CELLS, (cell["outputs"] for cell in cells), strict=True))


def kinds(outputs: list[Any]) -> list[str]:
    return [output["output_type"] for output in outputs]


def forms(output: Any) -> set[str]:
    return set(output.get("data", ()))


def html_of(output: Any) -> str:
    return "".join(output["data"]["text/html"])


def text_of(output: Any) -> str:
    return "".join(output["data"]["text/plain"])


def pictures(outputs: list[Any]) -> list[Any]:
    """The outputs that a front end shows as a picture."""
    return [o for o in outputs if forms(o) & {"image/png", "image/svg+xml"}]


def tables(html: str) -> list[list[list[str]]]:
    """The texts of all tables of a page, by row; the page must be whole."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.found: list[list[list[str]]] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("img", "br"):
                self.open.append(tag)
            if tag == "table":
                self.found.append([])
            elif tag == "tr":
                self.found[-1].append([])
            elif tag in ("td", "th"):
                self.found[-1][-1].append("")

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_data(self, data: str) -> None:
            if self.open and self.open[-1] in ("td", "th"):
                self.found[-1][-1][-1] += data

    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader.found


def test_the_cells_ran_without_errors(notebook: dict[str, list[Any]]) -> None:
    failed = {name for name, outputs in notebook.items() if "error" in kinds(outputs)}
    assert failed == {"interrupt", "error"}
    written = [o for outputs in notebook.values() for o in outputs if o.get("name") == "stderr"]
    assert not written


def test_a_fit_has_one_display_with_a_table_and_a_curve(notebook: dict[str, list[Any]]) -> None:
    (display,) = notebook["fit"]
    assert display["output_type"] == "display_data"
    html = html_of(display)
    groups, head, *rows = tables(html)[0]
    assert groups == ["", "loss", "accuracy", ""]
    assert head == ["epoch", "train", "val", "train", "val", "time"]
    assert [row[0] for row in rows] == ["1/3", "2/3", "3/3"]
    assert sum(text.endswith("*") for row in rows for text in row) == 1
    assert '<img alt="curve of loss" src="data:image/svg+xml;base64,' in html
    assert "first" in html  # the run
    assert "3 epochs in" in html
    assert "train ━" not in text_of(display)
    assert not re.search(r"<script|<style|\sid=|\son\w+=", html)


def test_a_history_has_a_table_curves_and_all_epochs_to_unfold(
    notebook: dict[str, list[Any]],
) -> None:
    (value,) = notebook["history"]
    assert value["output_type"] == "execute_result"
    html = html_of(value)
    summary, every = tables(html)
    assert summary[0] == ["", "train", "val", "best val", "in epoch"]
    assert [row[0] for row in summary[1:]] == ["loss", "accuracy"]
    assert every[0] == ["epoch", "train loss", "train accuracy", "val loss ", "val accuracy "]
    assert len(every) == 4
    assert len(re.findall(r'<img alt="curves of (loss|accuracy)"', html)) == 2
    assert text_of(value).splitlines()[0].startswith("epoch  train loss")
    assert not re.search(r"<script|<style|\sid=|\son\w+=", html)


def test_a_test_has_a_line_and_its_results_as_a_table(notebook: dict[str, list[Any]]) -> None:
    display, value = notebook["test"]
    assert kinds([display, value]) == ["display_data", "execute_result"]
    assert re.search(r"<div>test · loss \S+ · accuracy \S+ · ", html_of(display))
    ((head, row),) = tables(html_of(value))
    assert head == ["loss", "accuracy"]
    assert text_of(value).split() == [*head, *row]


def test_a_trainer_says_what_it_is(notebook: dict[str, list[Any]]) -> None:
    (value,) = notebook["trainer"]
    ((run, epochs, model, *_),) = tables(html_of(value))
    assert (run, epochs) == (["run", "first"], ["epochs", "3 of 3"])
    assert model == ["model", "Sequential, 78 parameters"]
    assert text_of(value).startswith("Trainer of run 'first', 3 of 3 epochs\n  model:")


@pytest.mark.parametrize(
    "name",
    [
        "find_lr", "plot", "curve_plot", "plot_not_last", "plot_kept", "kept", "show", "confusion",
        "confusion_not_shown", "top", "plot_confusion", "lr_callback", "inline", "agg",
    ],
)  # fmt: skip
def test_a_figure_is_shown_once_and_without_magic(
    notebook: dict[str, list[Any]], name: str
) -> None:
    (shown,) = pictures(notebook[name])
    assert "image/png" in forms(shown)


def test_a_figure_of_pyplot_in_the_same_cell_is_another_one(
    notebook: dict[str, list[Any]],
) -> None:
    assert len(pictures(notebook["own_plot"])) == 2


def test_a_format_that_the_user_has_chosen_is_kept(notebook: dict[str, list[Any]]) -> None:
    (shown,) = pictures(notebook["svg"])
    assert "image/svg+xml" in forms(shown)


def test_no_figure_stays_open(notebook: dict[str, list[Any]]) -> None:
    assert "".join(notebook["open_figures"][0]["text"]) == "[]\n"


def test_pictures_that_are_made_for_tensorboard_are_not_shown(
    notebook: dict[str, list[Any]],
) -> None:
    assert not pictures(notebook["interpret"])
    assert kinds(notebook["interpret"]) == ["display_data", "display_data"]


def test_a_cell_that_is_run_again_has_one_display_again(notebook: dict[str, list[Any]]) -> None:
    for name, epoch in (("value_of_fit", "4/4"), ("run_again", "5/5")):
        display, value = notebook[name]
        assert kinds([display, value]) == ["display_data", "execute_result"]
        assert [row[0] for row in tables(html_of(display))[0][2:]] == [epoch]


def test_an_interrupted_cell_leaves_one_display(notebook: dict[str, list[Any]]) -> None:
    display, error = notebook["interrupt"]
    assert error["ename"] == "KeyboardInterrupt"
    html = html_of(display)
    assert [row[0] for row in tables(html)[0][2:]] == ["1/3"]
    assert "1 of 3 epochs in" in html
    assert "Ctrl-C" in html
    assert "━" not in text_of(display)
    (after, _) = notebook["after_interrupt"]
    assert "1 epoch in" in html_of(after)


def test_a_cell_that_fails_leaves_one_display_that_says_how_far_it_came(
    notebook: dict[str, list[Any]],
) -> None:
    display, error = notebook["error"]
    assert (error["ename"], error["evalue"].splitlines()[0]) == ("ValueError", "mine")
    assert re.search(r"<div>1/3 train, \d+/12</div>", html_of(display))
    assert "background:" not in html_of(display)  # no bar


def test_a_long_training_shows_its_first_and_last_epochs(notebook: dict[str, list[Any]]) -> None:
    display, _ = notebook["long"]
    (table,) = tables(html_of(display))
    numbers = [row[0] for row in table]
    assert numbers[0] == "epoch"
    assert numbers[1:11] == [f"{i}/60" for i in range(1, 11)]
    assert numbers[-10:] == [f"{i}/60" for i in range(51, 61)]
    assert len(numbers) <= 24
    assert len(html_of(display)) < 20_000


def test_without_a_live_line_there_are_the_rows(notebook: dict[str, list[Any]]) -> None:
    display, _ = notebook["rows"]
    assert [row[0] for row in tables(html_of(display))[0][2:]] == ["1/2", "2/2"]
    assert kinds(notebook["off"]) == ["execute_result"]


def test_names_are_escaped(notebook: dict[str, list[Any]]) -> None:
    for output in notebook["escaped"]:
        html = html_of(output)
        assert "<b>" not in html
        assert "<i>" not in html
        tables(html)
    fit, history, test, results = notebook["escaped"]
    assert "<b>&" in tables(html_of(fit))[0][0]
    assert ["<b>&", "1.0000", "1.0000", "", ""] in tables(html_of(history))[0]
    assert "test &lt;i&gt;" in html_of(test)
    assert [row[0] for row in tables(html_of(results))[0]] == ["", "all", "<i>", "plain"]


def test_prints_are_streams(notebook: dict[str, list[Any]]) -> None:
    (printed,) = notebook["prints"]
    assert "".join(printed["text"]) == "a 1\n"
    (redirected,) = notebook["redirected"]
    assert "1/1" in "".join(redirected["text"])


# --- without a kernel


class FrontEnd:
    """Stands for IPython and a front end: what the display shows, and how often it was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[dict[str, str]] = []
        self.displays = 0
        self.now_s = 0.0
        self.is_broken = False
        monkeypatch.setitem(sys.modules, "IPython.display", self)
        monkeypatch.setattr("deepepochs.show.notebook.monotonic", lambda: self.now_s)

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.displays += 1
        self.update(content, raw=raw)
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        if self.is_broken:
            raise OSError("gone")
        self.sent.append(content)

    @property
    def html(self) -> str:
        return self.sent[-1]["text/html"]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> FrontEnd:
    return FrontEnd(monkeypatch)


def live(done: int, epoch: int = 1, loss: float = 0.5, total: int | None = 100) -> Any:
    from deepepochs.show.screens import Live

    return Live((epoch, 9), "train", "", done, total, {"loss": loss}, (10.0, "batches"), 3.0)


@pytest.fixture
def table() -> Any:
    from deepepochs.show.screens import EpochTable

    return EpochTable(9)


def screen() -> Any:
    from deepepochs.show.notebook import NotebookScreen

    return NotebookScreen()


def test_the_display_is_updated_at_most_ten_times_a_second(front: FrontEnd, table: Any) -> None:
    shown = screen()
    for step in range(1000):
        front.now_s = step / 1000
        shown.live(live(1 + step % 100))
        if step % 100 == 99:
            table.add(1 + step // 100, {"loss": 0.5}, {}, seconds=0.1)
            shown.row(table)
    assert front.displays == 1
    assert 8 <= len(front.sent) <= 10
    shown.close()
    assert "10/9" in front.html  # what was held back comes at the end
    assert len(front.sent) <= 11


def test_the_pass_that_runs_has_a_bar_and_what_is_known_of_it(front: FrontEnd) -> None:
    shown = screen()
    shown.live(live(25))
    assert "width:25.0%" in front.html
    assert "25/100" in front.html
    assert "0:03 left · loss 0.5000 · 10 batches/s" in front.html
    assert "━" in front.sent[-1]["text/plain"]
    front.now_s = 1
    shown.live(live(1234, total=None))
    assert "1,234 batches" in front.html
    assert "width:12em" not in front.html


def test_the_curve_grows_within_an_epoch_and_stays_small(front: FrontEnd, table: Any) -> None:
    shown = screen()
    for step in range(1, 2000):
        front.now_s += 1
        shown.live(live(step % 100 + 1, epoch=1 + step // 100, loss=2 - step / 1000))
    points = re.search(r'<polyline points="([^"]*)"', front.html)
    assert points is not None
    places = [tuple(map(float, point.split(","))) for point in points[1].split()]
    assert 90 < len(places) <= 200
    assert all(left[0] <= right[0] for left, right in itertools.pairwise(places))
    assert places[0][1] < places[-1][1]  # a high loss is up, where y is small


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [0.5, 0.25]])
def test_values_that_cannot_be_drawn_are_left_out(front: FrontEnd, table: Any, value: Any) -> None:
    shown = screen()
    shown.live(live(1, loss=value))
    for epoch in (1, 2):
        front.now_s += 1
        table.add(epoch, {"loss": value}, {}, seconds=1.0)
        shown.row(table)
    shown.close()
    assert "<svg" not in front.html
    assert len(tables(front.html)[0]) == 3


def test_the_rate_has_a_column_where_it_changes(front: FrontEnd, table: Any) -> None:
    shown = screen()
    for epoch, rate in enumerate([0.1, 0.05], start=1):
        table.add(epoch, {"loss": 1.0}, {"loss": 1.0}, rates={"lr": rate}, seconds=1.0)
    shown.row(table)
    groups, head, *rows = tables(front.html)[0]
    assert (groups, head) == (["", "loss", "", ""], ["epoch", "train", "val", "lr", "time"])
    assert [row[3] for row in rows] == ["0.1", "0.05"]


def test_a_front_end_that_fails_ends_no_training(front: FrontEnd, table: Any) -> None:
    shown = screen()
    shown.live(live(1))
    front.is_broken, front.now_s = True, 1
    with pytest.warns(RuntimeWarning, match=r"cannot show the progress \(OSError\('gone'\)\)"):
        shown.live(live(2))
    table.add(1, {"loss": 0.5}, {}, seconds=0.1)
    shown.row(table)
    shown.close()  # no further warning


def test_texts_of_the_user_go_to_the_output(
    front: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = screen()
    shown.write("hello\n")
    assert capsys.readouterr().out == "hello\n"
    shown.note("a <note>")
    assert "a &lt;note&gt;" in front.html
