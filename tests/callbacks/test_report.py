"""The page on a run and the page that compares runs, as text and as a browser shows them."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Browser, browsing, find_browser
from event_reader import assert_same_bits, loaders, run_bits, small_data, small_trainer
from torch import nn
from torch.utils.data import DataLoader

from deepepochs import (
    Callback,
    CheckCallback,
    InterpretCallback,
    LogCallback,
    Optimizer,
    ReportCallback,
    RunRecordCallback,
    rename,
)
from deepepochs.callbacks.run_facts import git_commit
from deepepochs.errors import RunLockedError
from deepepochs.metrics import accuracy
from deepepochs.report import compare_page, png, run_page, sample_picture
from deepepochs.report.svg import Scale
from deepepochs.runs.lock import is_locked
from deepepochs.runs.record import RunInfo, list_runs, plain, read_json, read_run, write_json

ANGRY = "<script>alert('x')</script>&\"'"


class Texts(HTMLParser):
    """The texts and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def images(num: int = 24) -> DataLoader[Any]:
    points, targets = small_data(num).tensors
    return DataLoader([(x.expand(6, 6)[None], y) for x, y in zip(points, targets, strict=True)], 8)


def image_trainer(folder: Path, **arguments: Any) -> Any:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    worst = InterpretCallback(
        nn.CrossEntropyLoss(reduction="none"), k=5, log_dir=folder, class_names=["a<b", "cat", "é"]
    )
    callbacks = [worst, ReportCallback(folder)]
    return small_trainer(model, callbacks=callbacks, running_id="pictures", **arguments)


def made_run(num_epochs: int = 100, num_metrics: int = 6, **record: Any) -> RunInfo:
    curves = {
        stage: {
            f"metric{index}": [(e, 1.0 / e + index) for e in range(1, num_epochs + 1)]
            for index in range(num_metrics)
        }
        for stage in ("train", "val")
    }
    rates = [[0.1 / epoch] for epoch in range(1, num_epochs + 1)]
    return RunInfo("made", "finished", {"rates": rates, **record}, curves, {})


# --- what is recorded


def test_a_run_without_a_recording_callback_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_trainer(callbacks=Callback()).fit(*loaders())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: RunRecordCallback(folder),
        lambda folder: ReportCallback(folder),
        lambda folder: LogCallback(folder),
        lambda folder: CheckCallback(ckpt_dir=folder),
        lambda folder: [
            LogCallback(folder), ReportCallback(folder), CheckCallback(ckpt_dir=folder)
        ],
    ],
)  # fmt: skip
def test_every_callback_that_keeps_files_records_the_run(make: Any, tmp_path: Path) -> None:
    trainer = small_trainer(
        callbacks=make(tmp_path), running_id="a", hyper_params={"lr": 0.1, "act": nn.ReLU}
    )
    history = trainer.fit(*loaders())
    run = read_run(tmp_path / "a")
    assert run.state == "finished"
    assert run.record["epochs_done"] == run.record["max_epochs"] == 2
    assert run.hyper_params == {"lr": 0.1, "act": str(nn.ReLU)}
    assert run.record["rates"] == [[0.1], [0.1]]
    assert [v for _, v in run.curves["val"]["loss"]] == [float(v) for v in history["val"]["loss"]]
    assert run.record["model"]["layers"][0] == ["0", "Linear", 56]
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) == 3


def test_recording_leaves_every_bit_as_it_is(tmp_path: Path) -> None:
    assert_same_bits(run_bits(), run_bits(callbacks=ReportCallback(tmp_path)))


def test_a_record_with_the_shapes_of_earlier_releases_is_shown_without() -> None:
    model = {"class": "Net", "layers": [["0", "Linear", "[8, 8]", 56], ["1", "ReLU", 0]]}
    texts = Texts(run_page(made_run(model=model))).texts
    assert {"Linear", "56", "ReLU"} <= set(texts)
    assert "[8, 8]" not in texts


def test_a_run_whose_table_cannot_be_written_fails_and_unlocks_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "metrics.csv").mkdir(parents=True)
    trainer = small_trainer(callbacks=RunRecordCallback(tmp_path), running_id="a")
    with pytest.raises(OSError):
        trainer.fit(*loaders())
    assert read_json(tmp_path / "a" / "run.json")["state"] == "failed"
    assert not is_locked(tmp_path / "a")


def test_a_failed_run_says_of_what_it_failed(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx == 1:
                raise ArithmeticError(ANGRY)

    trainer = small_trainer(callbacks=[ReportCallback(tmp_path), Fails()], epochs=3, running_id="a")
    with pytest.raises(ArithmeticError):
        trainer.fit(*loaders())
    run = read_run(tmp_path / "a")
    assert run.state == "failed"
    assert run.record["error"] == f"ArithmeticError: {ANGRY}"
    page = Texts((tmp_path / "a" / "report.html").read_text())
    assert f"Ended by ArithmeticError: {ANGRY}" in page.texts


def test_early_stopping_is_finished_and_says_why(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_after_train_epochs(self, trainer: Any, **others: Any) -> None:
            trainer.stop("it is noon")

    small_trainer(callbacks=[RunRecordCallback(tmp_path), Stops()], running_id="a").fit(*loaders())
    run = read_run(tmp_path / "a")
    assert (run.state, run.record["reason"]) == ("finished", "it is noon")


def test_ctrl_c_makes_an_interrupted_run(tmp_path: Path) -> None:
    class Interrupts(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    trainer = small_trainer(
        callbacks=[RunRecordCallback(tmp_path), Interrupts()], running_id="a", on_interrupt="return"
    )
    trainer.fit(*loaders())
    assert read_run(tmp_path / "a").state == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="kills by SIGKILL")
def test_a_run_is_running_until_its_process_is_killed(tmp_path: Path) -> None:
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from event_reader import loaders, small_trainer
        from deepepochs import Callback, RunRecordCallback
        class Waits(Callback):
            def on_after_epoch(self, **others):
                print("epoch", flush=True)
                sys.stdin.read()  # until it is killed
        record = RunRecordCallback({str(tmp_path)!r})
        small_trainer(callbacks=[Waits(), record], running_id="a", log_batch=False).fit(*loaders())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            next(line for line in process.stdout if line.startswith("epoch"))
            assert read_run(tmp_path / "a").state == "running"
        finally:
            process.kill()
            process.wait()
    assert read_run(tmp_path / "a").state == "killed"


def test_looking_at_a_run_does_not_take_its_lock_or_write(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "run.json", {"state": "running"})
    before = sorted((tmp_path / "a").iterdir())
    assert read_run(tmp_path / "a").state == "killed"
    assert sorted((tmp_path / "a").iterdir()) == before


def test_a_resumed_run_keeps_when_it_began_and_its_rates(tmp_path: Path) -> None:
    def trainer(epochs: int, **arguments: Any) -> Any:
        check = CheckCallback(ckpt_dir=tmp_path)
        model = nn.Linear(6, 3)
        sgd = torch.optim.SGD(model.parameters(), 1.0)
        opt = Optimizer(sgd, torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5))
        return small_trainer(
            model, opt=opt, epochs=epochs, callbacks=check, running_id="a", **arguments
        )

    trainer(2).fit(*loaders())
    first = read_run(tmp_path / "a").record
    trainer(4, resume="auto").fit(*loaders())
    second = read_run(tmp_path / "a").record
    assert second["started_at"] == first["started_at"]
    assert second["rates"] == [[1.0], [0.5], [0.25], [0.125]]
    assert [(fit["from"], fit["to"]) for fit in second["fits"]] == [(1, 2), (3, 4)]
    assert second["seconds"]["epochs"] >= first["seconds"]["epochs"]


def test_warnings_of_a_run_are_kept_once_and_still_shown(tmp_path: Path) -> None:
    class Warns(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            warnings.warn(ANGRY, UserWarning, stacklevel=1)

    trainer = small_trainer(callbacks=[RunRecordCallback(tmp_path), Warns()], running_id="a")
    shows = warnings.showwarning
    with pytest.warns(UserWarning, match="alert"):
        trainer.fit(*loaders())
    assert warnings.showwarning is shows
    assert read_run(tmp_path / "a").record["warnings"] == [f"UserWarning: {ANGRY}"]


def test_a_folder_that_is_in_use_is_refused_to_a_second_trainer(tmp_path: Path) -> None:
    class Starts(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            other = small_trainer(callbacks=RunRecordCallback(tmp_path), running_id="a", epochs=1)
            with pytest.raises(RunLockedError, match=r"the run .* is in use by this very process"):
                other.fit(*loaders())

    small_trainer(callbacks=[RunRecordCallback(tmp_path), Starts()], running_id="a").fit(*loaders())
    assert read_run(tmp_path / "a").record["max_epochs"] == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b"{torn", b"\xff\xfe", b'{"state": 7}'])
def test_a_damaged_record_makes_a_run_unknown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_bytes(content)
    (tmp_path / "a" / "metrics.csv").write_text("epoch,train_loss\n1,0.5\n2,")
    run = list_runs(tmp_path)[0]
    assert run.state == "unknown"
    assert run.curves["train"]["loss"][0] == (1, 0.5)
    assert "unknown" in run_page(run)


def test_a_table_without_epochs_gives_no_curves(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.csv").write_text("step,train_loss\n1,0.5\n")
    assert list_runs(tmp_path)[0].curves == {}


def test_plain_values_are_valid_json() -> None:
    values = {1: float("inf"), "t": torch.ones(2), "n": [float("nan")], "s": "\ud800", "x": None}
    text = json.dumps(plain(values), allow_nan=False)
    assert json.loads(text) == {"1": "inf", "t": [1.0, 1.0], "n": ["nan"], "s": "?", "x": None}


def test_the_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    assert git_commit(tmp_path) == ""
    git("init")
    assert git_commit(tmp_path) == ""
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    assert re.fullmatch("[0-9a-f]{40}", git_commit(tmp_path))
    (tmp_path / "a").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{40} \(changed\)", git_commit(tmp_path))


# --- the page on a run


def test_the_page_has_what_happened(tmp_path: Path) -> None:
    trainer = image_trainer(tmp_path, hyper_params={"lr": 0.1})
    history = trainer.fit(images(), images(16))
    trainer.test(images(16))
    page = (tmp_path / "pictures" / "report.html").read_text()
    texts = Texts(page).texts
    for title in (
        "Curves", "Metrics", "Confusion matrix", "Samples with the largest CrossEntropyLoss",
        "Hyper-parameters", "Training", "Time", "Model", "Environment", "Go on with this run",
    ):  # fmt: skip
        assert title in texts
    assert f"{float(history['val']['loss'][-1]):.4f}" in texts
    assert torch.__version__ in texts
    assert (
        "Sequential: 2 layers, 111 parameters, all of them trained. Weights and buffers take 444 bytes."
        in texts
    )
    assert "SGD(lr=0.1, momentum=0.9)" in texts
    assert page.count('<img alt="" src="data:image/png;base64,') == 5
    assert page.count('<svg class="plot"') == 2
    assert "The learning rate was 0.1 in all epochs." in texts
    assert "a<b" in texts


def test_every_tag_is_closed_and_no_text_of_a_run_is_markup(tmp_path: Path) -> None:
    trainer = small_trainer(
        callbacks=ReportCallback(tmp_path),
        running_id="a b'c",
        metrics=[rename(ANGRY)(lambda preds, targets: accuracy(preds, targets))],
        hyper_params={ANGRY: ANGRY, "nested": {"x": [ANGRY]}},
    )
    trainer.fit(*loaders())
    page = (tmp_path / "a b'c" / "report.html").read_text()
    assert "<script" not in page
    assert not Texts(page).open
    assert ANGRY in Texts(page).texts
    compared = compare_page([*list_runs(tmp_path), made_run(hyper_params={ANGRY: 1})], ANGRY)
    assert Texts(compared).tags.count("script") == 1
    assert not Texts(compared).open


def test_a_page_asks_for_nothing(tmp_path: Path) -> None:
    image_trainer(tmp_path).fit(images())
    for page in (
        (tmp_path / "pictures" / "report.html").read_text(),
        compare_page(list_runs(tmp_path)),
    ):
        assert "default-src 'none'" in page
        assert not re.search(r"https?://|@import|url\(", page)
        assert not re.search(r'(?:src|href)="(?!data:|pictures/report.html)', page)


def test_a_hundred_epochs_stay_small() -> None:
    pixels = torch.rand(3, 224, 224)
    sample = {"value": "1", "pred": "1", "target": "2", "picture": sample_picture(pixels)}
    counts = [[7] * 20 for _ in range(20)]
    pictures = {"samples": [sample] * 24, "confusion": {"counts": counts, "stage": "val"}}
    page = run_page(made_run(100)._replace(pictures=pictures))
    assert len(page.encode()) < 500_000


def test_ten_thousand_epochs_stay_small_too() -> None:
    assert len(run_page(made_run(10_000)).encode()) < 1_000_000


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    trainer = image_trainer(tmp_path)
    trainer.fit(images(), images(16))
    first = trainer.report(tmp_path / "first.html").read_bytes()
    assert trainer.report(tmp_path / "second.html").read_bytes() == first
    assert run_page(read_run(tmp_path / "pictures")).encode() == first


def test_a_report_needs_no_callback_and_no_epoch(tmp_path: Path) -> None:
    trainer = small_trainer(running_id="bare")
    page = trainer.report(tmp_path / "new" / "page.html").read_text()
    assert "bare" in Texts(page).texts
    trainer.fit(*loaders())
    assert "accuracy" in Texts(trainer.report(tmp_path / "page.html").read_text()).texts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "page.html"]


def test_a_report_goes_to_the_folder_of_the_run(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a")
    assert trainer.report() == tmp_path / "a" / "report.html"


@pytest.mark.parametrize(
    "values", [[float("nan")], [float("inf"), 1.0], [0.0], [5.0, 5.0], [-1e9, 1e-9], [1e-300]]
)
def test_odd_values_can_be_drawn(values: list[float]) -> None:
    curve = list(enumerate(values, start=1))
    page = run_page(RunInfo("odd", "finished", {}, {"train": {"loss": curve}}, {}))
    plot = page[page.index("<body>") : page.index("Metrics")]
    assert not re.search(r'="[^"]*\b(?:nan|inf)\b', plot)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.13, 0.97], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([1e-5, 0.1], ["1e-5", "1e-4", "0.001", "0.01", "0.1"]),
        ([-3.0, 4.0], ["-4", "-2", "0", "2", "4"]),
    ],
)
def test_axes_have_round_marks(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in Scale.of(values, 0, 1).ticks()] == labels


def test_a_picture_is_what_was_given() -> None:
    from matplotlib.image import imread

    pixels = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8).numpy()
    back = imread(io.BytesIO(png(pixels)), format="png")
    assert (back * 255).round().astype("uint8").tolist() == pixels.tolist()


@pytest.mark.parametrize("shape", [(7,), (2, 8, 8), (1, 2, 2), (), (4, 3, 8, 8)])
def test_what_is_no_image_gives_no_picture(shape: tuple[int, ...]) -> None:
    assert sample_picture(torch.rand(shape)) == ""


def test_the_confusion_matrix_has_counts_names_and_a_word_for_a_screen_reader() -> None:
    found = {"counts": [[8, 0], [1, 9]], "names": ["a<b", 'x id="y"'], "stage": "val"}
    page = run_page(made_run(2)._replace(pictures={"confusion": found}))
    names = found["names"]
    matrix = page[page.index('<svg class="matrix"') :]
    matrix = matrix[: matrix.index("</svg>") + 6]
    assert Texts(matrix).texts == [*names, "predicted", *names, "true", "8", "1", "9"]
    assert 'aria-label="confusion matrix"' in matrix
    # Nothing in it holds for the rest of the page.
    assert not re.search(r"<[^>]* id=|<style|<metadata", matrix)


# --- the page that compares runs


def test_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    for lr in (0.1, 0.01):
        trainer = small_trainer(
            callbacks=ReportCallback(tmp_path),
            running_id=f"lr{lr}",
            hyper_params={"lr": lr, "k": 3},
        )
        trainer.fit(*loaders())
        trainer.test(loaders()[1])
    texts = Texts(compare_page(list_runs(tmp_path))).texts
    assert {"lr0.1", "lr0.01", "test accuracy", "Settings that differ"} <= set(texts)
    differing = texts[texts.index("Settings that differ") + 1 :]
    assert differing[:3] == ["run", "lr", "best"]


# --- in a browser

no_browser = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def open_file(browser: Browser, path: Path) -> None:
    browser.log("browser"), browser.log("performance")
    browser.open(path.as_uri())


@no_browser
def test_a_browser_shows_the_curves_the_table_and_the_pictures(
    browser: Browser, tmp_path: Path
) -> None:
    trainer = image_trainer(tmp_path)
    trainer.fit(images(), images(16))
    trainer.test(images(16))
    page = tmp_path / "pictures" / "report.html"
    open_file(browser, page)
    drawn = browser.run(
        """const plot = document.querySelector('svg[aria-label="loss"]');
        return [...plot.querySelectorAll('polyline')].map(line => [
          line.classList[1], getComputedStyle(line).stroke, line.getBBox().width])"""
    )
    assert sorted(kind for kind, *_ in drawn) == ["c0", "c1"]
    assert drawn[0][1] != drawn[1][1]
    assert all(width > 100 for *_, width in drawn)
    seen = "return [...document.querySelectorAll('.samples img')].map(i => i.naturalWidth)"
    assert browser.run(seen) == [6] * 5
    text = browser.run("return document.body.innerText")
    assert "validation" in text
    assert "a<b" in text
    assert browser.errors() == []
    assert browser.requests() == [page.as_uri()]


@no_browser
def test_the_page_is_no_wider_than_a_phone(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(run_page(made_run(30, 4, hyper_params={"long": "x" * 300})), encoding="utf-8")
    open_file(browser, page)
    browser.resize(360, 800)
    assert browser.run("return document.documentElement.scrollWidth") == 360
    browser.cdp("Emulation.clearDeviceMetricsOverride")


@no_browser
def test_text_stands_out_in_the_light_and_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(run_page(made_run(3, 1, hyper_params={"lr": 0.1})), encoding="utf-8")
    colours = """const look = getComputedStyle(document.body);
        return [look.color, look.backgroundColor].map(c => c.match(/\\d+/g).map(Number))"""
    for scheme, text_is_darker in (("light", True), ("dark", False)):
        browser.emulate(prefers_color_scheme=scheme)
        open_file(browser, page)
        text, back = browser.run(colours)
        assert (sum(text) < sum(back)) is text_is_darker
        assert abs(sum(text) - sum(back)) > 450
    browser.emulate()


@no_browser
def test_a_confusion_matrix_can_be_read_in_the_light_and_in_the_dark(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    pictures = {"confusion": {"counts": [[8, 2], [1, 9]], "stage": "val"}}
    page.write_text(run_page(made_run(3, 1)._replace(pictures=pictures)), encoding="utf-8")
    colours = """const texts = [...document.querySelectorAll('svg.matrix text')];
        const card = getComputedStyle(document.querySelector('section')).backgroundColor;
        return [card, ...texts.map(text => getComputedStyle(text).fill)].map(
          c => c.match(/\\d+/g).map(Number).reduce((a, b) => a + b))"""
    for scheme in ("light", "dark"):
        browser.emulate(prefers_color_scheme=scheme)
        open_file(browser, page)
        card, *texts = browser.run(colours)
        on_card = [text for text in texts if text != 3 * 255]  # white is what stands on blue
        assert len(on_card) >= 8
        assert all(abs(text - card) > 450 for text in on_card)
        assert browser.errors() == []
    browser.emulate()


@no_browser
def test_a_click_sorts_the_runs(browser: Browser, tmp_path: Path) -> None:
    runs = [made_run(epochs_done=n)._replace(running_id=f"run{n}") for n in (9, 100, 20)]
    page = tmp_path / "page.html"
    page.write_text(compare_page([*runs, RunInfo("none", "unknown", {}, {}, {})]))
    open_file(browser, page)
    click = """const [name] = arguments;
        [...document.querySelectorAll('th button')].find(b => b.innerText === name).click();
        return [...document.querySelector('tbody').rows].map(row => row.cells[0].innerText)"""
    assert browser.run(click, "epochs") == ["none", "run9", "run20", "run100"]
    assert browser.run(click, "epochs") == ["run100", "run20", "run9", "none"]
    assert browser.run(click, "run") == ["none", "run9", "run20", "run100"]
    assert browser.errors() == []
    assert browser.requests() == [page.as_uri()]
