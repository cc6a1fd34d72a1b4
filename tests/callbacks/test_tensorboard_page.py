"""What a browser shows of TensorBoard itself, on the files of four real runs.

TensorBoard's page is of Angular and Polymer: scripts walk through its shadow roots, and every
wait is a poll with a limit, which a slow machine may use up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from browser import DIRECT, LIMIT_S, Browser, browsing, find_browser
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import AnalyzeCallback, InterpretCallback, LogCallback, Trainer
from deepepochs.metrics import accuracy

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs chromium and chromedriver")

EPOCHS = 3
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# All elements, those in shadow roots too, as `all`.
WALK = """
function* walk(node) {
    yield node;
    if (node.shadowRoot) yield* walk(node.shadowRoot);
    for (const child of node.children || []) yield* walk(child);
}
const all = [...walk(document.documentElement)];
const tags = (...names) => all.filter(e => names.includes(e.localName));
"""


class Digits(nn.Sequential):
    """A model with a name of its own."""


class Board(NamedTuple):
    """A TensorBoard that runs, what it shows, and the window it is shown in."""

    address: str
    results: dict[str, dict[str, float]]
    browser: Browser

    def open(self, tab: str, query: str = "") -> None:
        """Go to a tab, by a real load of the page."""
        self.browser.open("about:blank")
        self.browser.open(f"{self.address}/?{query}#{tab}")

    def wait(self, script: str, accept: Callable[[Any], Any], *arguments: Any) -> Any:
        """Ask the page again and again; return the first answer that is accepted."""
        end = time.monotonic() + LIMIT_S
        while True:
            answer = self.browser.run(WALK + script, *arguments)
            if accept(answer):
                return answer
            assert time.monotonic() < end, f"after {LIMIT_S} s the page says: {answer}"
            time.sleep(0.1)


def digits(start: int, stop: int) -> TensorDataset:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[start:stop] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return TensorDataset(images, torch.tensor(labels[start:stop]))


def train(folder: Path, lr: float, width: int) -> tuple[str, dict[str, float]]:
    """Train and test one run that writes all there is for TensorBoard."""
    torch.manual_seed(0)
    model = Digits(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    worst = InterpretCallback(
        nn.CrossEntropyLoss(reduction="none"), k=8, log_dir=folder, image_data=True,
        class_names=NAMES,
    )  # fmt: skip
    trainer = Trainer(
        model,
        F.cross_entropy,
        torch.optim.SGD(model.parameters(), lr, momentum=0.9),
        epochs=EPOCHS,
        metrics=accuracy,
        show_info=False,
        running_id=f"lr{lr}-width{width}",
        hyper_params={"lr": lr, "width": width},
        callbacks=[
            LogCallback(folder, log_graph=True),
            worst,
            AnalyzeCallback("both", folder, every_n_batches=3, hist_every_n=1),
        ],
    )
    trainer.fit(DataLoader(digits(0, 320), 64, shuffle=True), DataLoader(digits(320, 480), 80))
    values = trainer.test(DataLoader(digits(480, 640), 80))
    return trainer.running_id, {name: float(value) for name, value in values.items()}


def is_served(address: str) -> bool:
    """Whether TensorBoard answers, which it does when it has read all runs."""
    try:
        with DIRECT.open(f"{address}/data/runs", timeout=LIMIT_S) as reply:
            return bool(reply.read())
    except OSError:
        return False


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    logs = folder / "logs"
    results = dict(train(logs, lr, width) for lr in (0.02, 0.1) for width in (16, 32))
    log = folder / "tensorboard.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "tensorboard.main", f"--logdir={logs}", "--port=0",
                "--host=127.0.0.1", "--load_fast=false", "--reload_interval=0",
                "--reload_task=blocking",
            ],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + LIMIT_S
        address = ""
        while not (address and is_served(address)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
            said = [word for word in log.read_text().split() if word.startswith("http://127.")]
            address = said[0].rstrip("/") if said else ""
        with browsing(folder / "profile") as browser:
            browser.resize(1400, 1000)
            yield Board(address, results, browser)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture(autouse=True)
def nothing_from_elsewhere_and_no_error(board: Board) -> Iterator[None]:
    """What holds on every tab."""
    board.browser.log("browser"), board.browser.requests()
    yield
    # It warns of its own Three.js and of WebGL without a graphics card: these are no errors.
    severe = [e["message"] for e in board.browser.log("browser") if e["level"] == "SEVERE"]
    assert severe == []
    asked = board.browser.requests()
    assert len(asked) > 5
    # It brings its fonts along; were one of them fetched from afar, it would be here.
    assert [url for url in asked if not url.startswith((board.address, "about:"))] == []


def test_the_curves_of_both_stages_are_drawn_for_every_run(board: Board) -> None:
    board.open("timeseries", "tagFilter=%5E%28loss%7Caccuracy%29%2Fepoch")
    script = """
    return tags('scalar-card').map(card => {
        const inside = [...walk(card)];
        const canvas = inside.find(e => e.tagName === 'CANVAS');
        return [card.innerText, canvas ? canvas.width * canvas.height : 0];
    });
    """
    wanted = [
        f"{metric}/epoch/{stage}" for metric in ("accuracy", "loss") for stage in ("train", "val")
    ]

    def is_whole(cards: list[Any]) -> bool:
        return len(cards) == len(wanted) and all(
            area > 0 and all(run in text for run in board.results) for text, area in cards
        )

    cards = board.wait(script, is_whole)
    for (text, _), tag in zip(cards, wanted, strict=True):
        assert "".join(text.split()).startswith(tag)
        lines = text.split()
        assert lines.count(str(EPOCHS)) >= len(board.results)  # the last step of each run


def test_training_and_validation_are_drawn_in_one_chart(board: Board) -> None:
    """With the values as they are, although TensorBoard smooths the curves of other charts."""
    board.open("custom_scalars")
    script = """
    return tags('tf-custom-scalar-margin-chart-card').map(card => {
        const inside = [...walk(card)];
        const chart = inside.find(e => e.localName === 'vz-line-chart2');
        const drawn = inside.filter(e => e.localName === 'path' && e.getAttribute('d'));
        return [card.title, chart ? drawn.length : 0, card.textContent];
    });
    """

    def is_whole(cards: list[Any]) -> bool:
        return len(cards) == 2 and all(num >= 2 * len(board.results) for _, num, _ in cards)

    cards = board.wait(script, is_whole)
    assert sorted(title for title, *_ in cards) == ["accuracy", "loss"]
    text = "return all.map(e => e.shadowRoot ? '' : e.innerText || '').join(' ');"
    assert "Training and validation" in board.browser.run(WALK + text)


def test_the_hparams_table_has_a_line_for_each_run(board: Board) -> None:
    board.open("hparams")
    script = """
    return tags('vaadin-grid-cell-content').filter(e => e.getClientRects().length)
        .map(e => e.innerText.trim()).filter(text => text);
    """
    names = sorted(board.results)

    def is_whole(cells: list[str]) -> bool:
        return all(name in cells for name in names) and len(cells) >= 5 * (len(names) + 1)

    cells = board.wait(script, is_whole)
    heads = [cell for cell in cells if cell in ("lr", "width", "loss", "accuracy")]
    assert sorted(heads) == ["accuracy", "loss", "lr", "width"]
    for name in names:
        start = cells.index(name) + 1
        shown = dict(zip(heads, map(float, cells[start : start + 4]), strict=True))
        lr, width = name.removeprefix("lr").split("-width")
        results = board.results[name]
        expected = {"lr": float(lr), "width": float(width)} | results
        assert shown == pytest.approx(expected, rel=1e-3)


def test_the_confusion_matrices_and_the_samples_are_loaded(board: Board) -> None:
    board.open("images")
    script = """
    return tags('tf-image-loader').map(loader => {
        const image = [...walk(loader)].find(e => e.tagName === 'IMG');
        return [loader.tag, loader.run, image ? image.naturalWidth : 0];
    });
    """
    tags = ["test_confusion_matrix", "top_imgs"]  # the tags that it opens by itself
    wanted = {(tag, run) for tag in tags for run in board.results}

    def is_whole(images: list[Any]) -> bool:
        return {(tag, run) for tag, run, width in images if width} >= wanted

    images = board.wait(script, is_whole)
    assert all(width > 300 for _, _, width in images)
    panes = board.wait("return tags('tf-category-paginated-view').map(e => e.category.name);", len)
    assert {*tags, "train_confusion_matrixes", "val_confusion_matrixes"} <= set(panes)


def test_the_histograms_of_layers_are_drawn(board: Board) -> None:
    board.open("histograms")
    script = """
    return tags('vz-histogram-timeseries').map(chart =>
        [...walk(chart)].filter(e => e.tagName === 'path' && (e.getAttribute('d') || '').length > 50)
        .length);
    """
    # A path for each histogram: of a forward and a backward pass in every third mini-batch.
    board.wait(script, lambda charts: len(charts) >= 2 and all(num >= 5 for num in charts))
    panes = board.wait("return tags('tf-category-paginated-view').map(e => e.category.name);", len)
    assert "BACKWARD_hist" in panes
    assert "FORWARD_hist" in panes


def test_the_graph_shows_the_layers_with_their_weights(board: Board) -> None:
    board.open("graphs")
    nodes = """
    return tags('g').filter(e => e.classList.contains('node')).map(e => e.dataset.name);
    """
    expand = """
    const node = tags('g').find(e => e.classList.contains('node') && e.dataset.name === arguments[0]);
    node.querySelector('.nodeshape').dispatchEvent(
        new MouseEvent('dblclick', {bubbles: true, composed: true}));
    """
    top = board.wait(nodes, len)
    assert set(top) == {"input", "Digits", "output"}
    layers = {"Digits/Flatten[0]", "Digits/Linear[1]", "Digits/ReLU[2]", "Digits/Linear[3]"}
    for name, wanted in (
        ("Digits", layers),
        ("Digits/Linear[1]", {"Digits/Linear[1]/weight", "Digits/Linear[1]/bias"}),
    ):
        board.browser.run(WALK + expand, name)
        board.wait(nodes, set(wanted).issubset)
    children = {n for n in board.browser.run(WALK + nodes) if n.count("/") == 1 and "~~" not in n}
    assert children == layers
