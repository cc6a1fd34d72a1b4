"""The page on a run and the page that compares runs, as text and as a browser shows them."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from html import escape
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
    CallbackPool,
    CheckCallback,
    InterpretCallback,
    LogCallback,
    Optimizer,
    ReportCallback,
    RunRecordCallback,
    rename,
)
from deepepochs.callbacks.run_facts import command_line, git_commit
from deepepochs.checks.findings import Finding, Findings
from deepepochs.cli.lines import compare_lines, list_lines, run_lines
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


def test_the_record_does_not_depend_on_the_hooks_of_a_subclass(tmp_path: Path) -> None:
    class Mine(CheckCallback):
        def on_before_epoch(self, **others: Any) -> None: ...
        def on_after_fit(self, **others: Any) -> None: ...
        def on_after_test_epochs(self, **others: Any) -> None: ...

    trainer = small_trainer(callbacks=Mine(ckpt_dir=tmp_path), running_id="a")
    trainer.fit(*loaders())
    trainer.test(loaders()[1])
    record = read_run(tmp_path / "a").record
    assert (record["state"], record["epochs_done"], len(record["rates"])) == ("finished", 2, 2)
    assert "loss" in record["test"]
    assert not is_locked(tmp_path / "a")


def test_a_copy_of_a_running_check_callback_holds_no_lock_and_goes_where_it_is_sent(
    tmp_path: Path,
) -> None:
    copies = []

    class Copies(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            copies.append(pickle.loads(pickle.dumps(trainer.callbacks[1])))

    check = CheckCallback(ckpt_dir=tmp_path)
    small_trainer(callbacks=[check, Copies()], running_id="a", epochs=1).fit(*loaders())
    (copy,) = copies
    copy.move_to(tmp_path / "other")
    assert (copy.ckpt_dir, check.ckpt_dir) == (tmp_path / "other", tmp_path)
    small_trainer(callbacks=copy, running_id="a", epochs=1).fit(*loaders())
    assert read_run(tmp_path / "other" / "a").state == "finished"


def test_companions_are_checked_and_called_further_in_than_their_callback() -> None:
    calls: list[str] = []

    class Named(Callback):
        def __init__(self, name: str, *companions: Callback) -> None:
            super().__init__()
            self.name = name
            self.own = companions

        @property
        def companions(self) -> tuple[Callback, ...]:
            return self.own

        def on_before_fit(self, **others: Any) -> None:
            calls.append(f"{self.name} begins")

        def on_after_fit(self, **others: Any) -> None:
            calls.append(f"{self.name} ends")

    pool = CallbackPool([Named("first", Named("companion")), Named("last")])
    pool.trigger("before_fit", trainer=None, epochs=1)
    pool.trigger("after_fit", trainer=None)
    assert calls == [
        "first begins", "companion begins", "last begins",
        "last ends", "companion ends", "first ends",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="not a Callback"):
        pool.append(Named("second", "no callback"))  # type: ignore[arg-type]


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
        ([1e-5, 1.4e-4], ["0", "5e-5", "1e-4", "0.00015"]),
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


@pytest.mark.parametrize(
    ("running_id", "record", "title"),
    [
        ("mine", {"has_own_id": True}, "mine"),
        ("2026-11-25_2136_otter", {"has_own_id": False}, "Net, 25 November 2026, 21:36"),
        ("179564342600-cfa96c25", {}, "Net, 25 November 2026, 21:36"),
        ("of-release-1", {}, "of-release-1"),
    ],
)
def test_the_title_is_the_id_that_was_given_or_else_what_was_trained_when(
    running_id: str, record: dict[str, Any], title: str
) -> None:
    run = made_run(
        2, started_at="2026-11-25T21:36:05+0100", updated_at="2026-11-25T21:00:00+00:00",
        environment={"device": "cuda:1"}, model={"class": "Net", "parameters": 12, "bytes": 48},
        **record,
    )._replace(running_id=running_id)  # fmt: skip
    page = Texts(run_page(run))
    assert f"{title} – training report" in page.texts
    heading = page.texts[page.texts.index("finished") - 1]
    assert heading == title
    kind = page.texts[page.texts.index("finished") - 2]
    assert kind == ("Training report" if title == running_id else f"Training report · {running_id}")
    when = "25 November 2026, 21:36 to 22:00"
    assert f"Net with 12 parameters (48 bytes) · on cuda:1 · {when}" in page.texts
    assert not any("+0" in text for text in page.texts)


def test_a_trainer_says_whether_its_id_was_given_and_what_started_it(tmp_path: Path) -> None:
    for given in ("mine", None):
        trainer = small_trainer(callbacks=RunRecordCallback(tmp_path), running_id=given)
        trainer.fit(*loaders())
        record = read_run(tmp_path / trainer.running_id).record
        assert record["has_own_id"] is (given is not None)
        assert record["command"] == command_line(sys.orig_argv)
        weights = [*trainer.model.parameters(), *trainer.model.buffers()]
        assert record["model"]["bytes"] == sum(w.numel() * w.element_size() for w in weights)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/python3", "train.py", "--lr", "0.1"], "python3 train.py --lr 0.1"),
        (["python", "-m", "my.module", "a b"], "python -m my.module 'a b'"),
        (["/v/bin/python", "/v/bin/deepepochs", "demo"], "deepepochs demo"),
        (
            ["python", "a.py", "--token", "x", "--hf_API-Key=y"],
            "python a.py --token … --hf_API-Key=…",
        ),
        (["python", "-c", "import os\n" * 9], "python -c …"),
        (["python", "-m", "ipykernel_launcher", "-f", "/home/a/k.json"], ""),
        ([], ""),
    ],
)
def test_the_command_is_as_it_was_typed_without_secrets(words: list[str], shown: str) -> None:
    assert command_line(words) == shown


def test_the_best_epoch_is_marked_in_the_curves_and_in_the_table() -> None:
    monitor = {"name": "metric1", "stage": "val", "mode": "min"}
    page = run_page(made_run(10, 2, monitor=monitor))
    texts = Texts(page).texts
    assert "best epoch: 10" in texts
    assert texts.count("best: 1.1000 in epoch 10") == 1
    assert page.count('<path class="best"') == 2
    row = re.findall(r'<tr class="best"><td class="n">(.*?)</td>', page)
    assert row == ["★ 10"]
    early = run_page(made_run(10, 2, monitor={**monitor, "mode": "max"}))
    assert "in the best epoch, 1" in Texts(early).texts


def test_a_single_epoch_is_not_marked_as_the_best() -> None:
    page = run_page(made_run(1, 2, monitor={"name": "metric1", "stage": "val"}))
    assert 'class="best"' not in page
    assert "best validation metric1, in epoch 1" in Texts(page).texts


@pytest.mark.parametrize(
    ("rates", "sentence", "num_plots"),
    [
        ([[0.1]] * 3, "The learning rate was 0.1 in all epochs.", 1),
        ([0.1] * 3, "The learning rate was 0.1 in all epochs.", 1),
        ([[0.1, 0.01]] * 3, "The learning rates were 0.1 and 0.01 in all epochs.", 1),
        ([[0.1], [0.05], [0.02]], "", 2),
        ([[None]] * 3, "", 1),
        ([], "", 1),
    ],
)
def test_a_constant_rate_is_a_sentence(rates: Any, sentence: str, num_plots: int) -> None:
    page = run_page(made_run(3, 1, rates=rates))
    assert [t for t in Texts(page).texts if t.startswith("The learning rate")] == [sentence] * bool(
        sentence
    )
    assert len(re.findall(r'<div class="keep(?: last)?">', page)) == num_plots


def test_a_logarithmic_axis_is_said() -> None:
    def page(*values: float) -> str:
        curve = list(enumerate(values, start=1))
        return run_page(RunInfo("a", "finished", {}, {"train": {"loss": curve}}, {}))

    assert "logarithmic axis" in page(1.0, 0.001)
    assert "logarithmic axis" not in page(1.0, 0.5)


@pytest.mark.parametrize("num_plots", [1, 2, 3, 4, 7])
def test_an_odd_plot_has_a_row_for_itself(num_plots: int) -> None:
    page = run_page(made_run(3, num_plots, rates=[]))
    assert page.count('<svg class="plot wide"') == num_plots % 2
    assert page.count('<svg class="plot"') == num_plots


def test_the_entries_of_a_vector_are_in_one_plot() -> None:
    table = {"loss": [(1, 0.5), (2, 0.4)]}
    table |= {f"recall[{index}]": [(1, 0.1), (2, index / 10)] for index in range(4)}
    page = run_page(RunInfo("a", "finished", {}, {"train": dict(table), "val": table}, {}))
    assert page.count('<svg class="plot"') == 2
    texts = Texts(page).texts
    assert "recall, validation" in texts
    assert texts[texts.index("recall, validation") + 1 :][:4] == ["[0]", "[1]", "[2]", "[3]"]


def test_where_the_time_went_is_said_in_plain_words() -> None:
    seconds = {"epochs": 10.0, "training": 7.0, "validation": 1.0}
    texts = Texts(run_page(made_run(2, 1, seconds=seconds))).texts
    part = texts.index("everything else: saving, logging, callbacks")
    assert texts[part : part + 3][1:] == ["2 s", "20.0%"]


def test_a_page_says_where_its_run_is_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check = CheckCallback(ckpt_dir="logs")
    small_trainer(callbacks=[check, ReportCallback("logs")], running_id="a").fit(*loaders())
    texts = Texts(Path("logs/a/report.html").read_text()).texts
    assert texts[texts.index("folder") + 1] == "logs/a"
    assert re.search(r"Trainer\(\.\.\., epochs=\d+, running_id='a', resume='auto'\)", str(texts))


ODD: list[Any] = [
    None, 1.5, "text", [], [1], [[1, "a"]], {}, {"class": 3, "layers": [[1]], "parameters": "x"},
    {"name": "loss", "stage": 7}, {"counts": [[1, 2], [3]], "names": [1], "epochs": []},
]  # fmt: skip


def with_odd_values(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The content with another value at each place, one at a time."""
    inner = [
        (name, key) for name, value in content.items() if isinstance(value, dict) for key in value
    ]
    for place in [*((name,) for name in content), *inner]:
        for odd in ODD:
            changed = json.loads(json.dumps(content))
            (changed if len(place) == 1 else changed[place[0]])[place[-1]] = odd
            yield changed


def test_what_has_another_shape_is_left_out_everywhere(tmp_path: Path) -> None:
    """As files of an earlier or a later release may have it."""
    trainer = image_trainer(tmp_path, hyper_params={"lr": 0.1})
    trainer.findings = FOUND
    trainer.fit(images(), images(16))
    trainer.test(images(16))
    good = read_run(tmp_path / "pictures")
    bare = good._replace(pictures={})  # drawing its matrix takes the most time
    runs = [bare._replace(record=record) for record in with_odd_values(good.record)]
    assert good.findings
    assert len(runs) > 400
    for name, value in good.pictures.items():
        for pictures in with_odd_values({name: value}):
            assert run_page(good._replace(pictures=pictures)).endswith("</html>\n")
    for run in runs:
        assert run_page(run).endswith("</html>\n")
        assert all(isinstance(line, str) for line in run_lines(run, 80))
    assert compare_page(runs).endswith("</html>\n")
    assert len(list_lines(runs, 80)) > len(runs)
    assert len(compare_lines(runs, 80)) > len(runs)


# --- what trainer.check has found

CHECKED = "What the check found"
FOUND = Findings(
    [
        Finding("note", "The rate is < 0.01.", "Take 0.1."),
        Finding("error", "The labels are NaN.", "Drop these & go on."),
        Finding("warning", "It does not shuffle.", "Give shuffle=True."),
    ]
)


def checked_trainer(folder: Path, findings: Findings | None = None, **arguments: Any) -> Any:
    torch.manual_seed(1)
    arguments = {"callbacks": CheckCallback(ckpt_dir=folder), "running_id": "a", **arguments}
    trainer = small_trainer(nn.Linear(6, 3), **arguments)
    trainer.findings = findings
    return trainer


def page_of(folder: Path) -> str:
    return run_page(read_run(folder / "a"))


def test_the_page_has_what_the_check_found(tmp_path: Path) -> None:
    trainer = checked_trainer(tmp_path)
    train_dl, _ = loaders()
    findings = trainer.check(train_dl, train_dl)
    assert any("samples are training samples, too" in one.text for one in findings)
    assert not (tmp_path / "a").exists()
    trainer.fit(train_dl, train_dl)
    page = page_of(tmp_path)
    assert page.count(CHECKED) == 1
    assert all(escape(one.text) in page and escape(one.remedy) in page for one in findings)


def test_findings_are_shown_the_worst_first_with_their_remedies(tmp_path: Path) -> None:
    checked_trainer(tmp_path, FOUND).fit(*loaders())
    page = page_of(tmp_path)
    notes = re.findall('<p class="note (.*?)"><b>(.*?)</b> (.*?)<br>.*?>(.*?)</span>', page)
    assert notes == [
        ("bad", "error", "The labels are NaN.", "Drop these &amp; go on."),
        ("", "warning", "It does not shuffle.", "Give shuffle=True."),
        ("calm", "note", "The rate is &lt; 0.01.", "Take 0.1."),
    ]
    shown = run_lines(read_run(tmp_path / "a"), 100)
    assert [line for line in shown if line.startswith("Check, ")] == [
        "Check, error: The labels are NaN. Drop these & go on.",
        "Check, warning: It does not shuffle. Give shuffle=True.",
        "Check, note: The rate is < 0.01. Take 0.1.",
    ]


def test_the_page_says_calmly_that_the_check_found_nothing(tmp_path: Path) -> None:
    checked_trainer(tmp_path, Findings([])).fit(*loaders())
    assert CHECKED in page_of(tmp_path)
    assert '<p class="quiet">Nothing was found.</p>' in page_of(tmp_path)
    assert "Check: nothing was found." in run_lines(read_run(tmp_path / "a"), 100)


def test_a_run_that_was_not_checked_has_no_card(tmp_path: Path) -> None:
    checked_trainer(tmp_path).fit(*loaders())
    assert "findings" not in read_run(tmp_path / "a").record
    assert CHECKED not in page_of(tmp_path)
    assert not [one for one in run_lines(read_run(tmp_path / "a"), 100) if "Check:" in one]


def test_a_resumed_run_keeps_what_the_check_found_and_a_new_check_replaces_it(
    tmp_path: Path,
) -> None:
    checked_trainer(tmp_path, FOUND, epochs=1).fit(*loaders())
    checked_trainer(tmp_path, epochs=2, resume="auto").fit(*loaders())
    assert "The labels are NaN." in page_of(tmp_path)
    checked_trainer(tmp_path, Findings([]), epochs=3, resume="auto").fit(*loaders())
    assert "Nothing was found." in page_of(tmp_path)
    checked_trainer(tmp_path, epochs=1).fit(*loaders())  # a new run in the same folder
    assert CHECKED not in page_of(tmp_path)


def test_a_report_after_a_check_alone_has_its_card(tmp_path: Path) -> None:
    trainer = checked_trainer(tmp_path, FOUND, callbacks=None)
    assert CHECKED in trainer.report(tmp_path / "page.html").read_text(encoding="utf-8")
    recorded = checked_trainer(tmp_path)
    recorded.fit(*loaders())
    recorded.findings = FOUND  # of a check between fit and report
    assert CHECKED in recorded.report(tmp_path / "page.html").read_text(encoding="utf-8")


# --- the page that compares runs


def compared(num_runs: int) -> list[RunInfo]:
    """Runs of which the last is the best."""
    monitor = {"name": "loss", "stage": "val", "mode": "min"}
    runs = []
    for index in range(num_runs):
        curve = [(epoch, 1 / (epoch + index)) for epoch in range(1, 6)]
        curves = {"train": {"loss": curve}, "val": {"loss": curve, f"own{index}": curve}}
        runs.append(RunInfo(f"run{index}", "finished", {"monitor": monitor}, curves, {}))
    return runs


def test_the_curves_of_all_runs_are_in_one_plot_for_each_metric() -> None:
    page = compare_page(compared(5))
    assert page.count('<svg class="plot"') == 2  # loss of validation and of training, not own0
    plot = page[page.index('<svg class="plot"') :]
    drawn = re.findall(
        r'<g data-run="(\d)"><polyline class="line ([^"]*)"', plot[: plot.index("</svg>")]
    )
    assert drawn == [("4", "c4"), ("3", "c3"), ("2", "c2"), ("1", "c1"), ("0", "c0")]
    assert "run4, epoch 5: 0.11111" in plot


def test_the_best_run_comes_first_and_is_marked() -> None:
    page = compare_page([*compared(3), RunInfo("none", "unknown", {}, {}, {})])
    names = re.findall(r'<tr data-run="\d"( class="best")?><td data-key="(\w+)"', page)
    assert names == [(' class="best"', "run2"), ("", "run1"), ("", "run0"), ("", "none")]


def test_more_than_twelve_runs_are_grey() -> None:
    page = compare_page(compared(15))
    plot = page[page.index('<svg class="plot"') :]
    styles = re.findall('<polyline class="line ([^"]*)"', plot[: plot.index("</svg>")])
    assert len(set(styles)) == 13
    assert styles[:3] == ["other"] * 3  # below the others
    assert "3 others" in Texts(page).texts


def test_links_lead_from_where_the_page_is(tmp_path: Path) -> None:
    (tmp_path / "logs" / "a b").mkdir(parents=True)
    (tmp_path / "logs" / "a b" / "report.html").touch()
    run = made_run(2)._replace(folder=tmp_path / "logs" / "a b")
    assert 'href="a%20b/report.html"' in compare_page([run])
    assert 'href="../logs/a%20b/report.html"' in compare_page([run], "x", tmp_path / "pages")


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
    long = "x" * 300
    found = [{"severity": "error", "text": long, "remedy": long}]
    run = made_run(30, 4, hyper_params={"long": long}, findings=found, warnings=[long])
    page.write_text(run_page(run), encoding="utf-8")
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
def test_the_labels_of_a_confusion_matrix_are_inside_of_it(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    names = [f"a long name {index}" for index in range(10)]
    found = {"counts": [[100 * (i == j) + i for j in range(10)] for i in range(10)], "stage": "val"}
    run = made_run(3, 1)._replace(pictures={"confusion": {**found, "names": names}})
    page.write_text(run_page(run), encoding="utf-8")
    for width in (1400, 390):
        browser.resize(width, 900)
        open_file(browser, page)
        outside = browser.run(
            """const matrix = document.querySelector('svg.matrix');
            const box = matrix.getBoundingClientRect();
            const inside = r => r.left >= box.left - 1 && r.right <= box.right + 1
              && r.top >= box.top - 1 && r.bottom <= box.bottom + 1;
            const texts = [...matrix.querySelectorAll('text')];
            return [texts.filter(t => ['true', 'predicted'].includes(t.textContent)).length,
              ...texts.filter(t => !inside(t.getBoundingClientRect())).map(t => t.textContent)]"""
        )
        assert outside == [2]
    browser.cdp("Emulation.clearDeviceMetricsOverride")


@no_browser
def test_a_run_has_one_colour_in_the_table_and_in_the_plots(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(compare_page(compared(14)), encoding="utf-8")
    open_file(browser, page)
    colours = browser.run(
        """return [...document.querySelectorAll('tr[data-run]')].map(row => {
          const n = row.dataset.run;
          const swatch = getComputedStyle(row.querySelector('.swatch i')).borderTopColor;
          const lines = [...document.querySelectorAll(`svg g[data-run="${n}"] .line`)];
          return [swatch, ...lines.map(line => getComputedStyle(line).stroke)]})"""
    )
    assert len(colours) == 14
    for swatch, *lines in colours:
        assert set(lines) == {swatch}
    lit = """const row = document.querySelector('tr[data-run="3"]');
        row.dispatchEvent(new Event('mouseenter'));
        const lines = [...document.querySelectorAll('svg g[data-run]')];
        const shown = lines.filter(g => getComputedStyle(g).opacity === '1');
        row.dispatchEvent(new Event('mouseleave'));
        const after = lines.filter(g => getComputedStyle(g).opacity === '1').length;
        return [lines.length, after, shown.map(g => g.dataset.run)]"""
    num_lines, after, shown = browser.run(lit)
    assert after == num_lines
    assert set(shown) == {"3"}
    assert browser.errors() == []


@no_browser
def test_a_phone_shows_name_and_best_value_and_hints_at_the_rest(
    browser: Browser, tmp_path: Path
) -> None:
    runs = [
        run._replace(running_id=f"{'a-long-name-' * 5}{i}") for i, run in enumerate(compared(3))
    ]
    page = tmp_path / "page.html"
    page.write_text(compare_page(runs), encoding="utf-8")
    browser.resize(390, 800)
    open_file(browser, page)
    width, best_end, hidden, hint = browser.run(
        """const scroll = document.querySelector('.scroll');
        const row = scroll.querySelector('tbody tr');
        return [document.documentElement.scrollWidth, row.cells[1].getBoundingClientRect().right,
          scroll.scrollWidth - scroll.clientWidth, getComputedStyle(scroll).backgroundAttachment]"""
    )
    assert width == 390
    assert best_end < 390
    assert hidden > 50
    assert hint == "local, local, scroll, scroll"  # the shadow stays, and what hides it moves
    browser.cdp("Emulation.clearDeviceMetricsOverride")


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
