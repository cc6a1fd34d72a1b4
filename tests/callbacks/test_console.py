"""The console: its lines, and what reaches a terminal, a file or a pipe."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import re
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConsoleCallback,
    DefaultCallback,
    EpochTask,
    Optimizer,
    ReportCallback,
    Trainer,
    info,
    log_batch,
    log_epoch,
    loop,
    print_out,
    rename,
)
from deepepochs.callbacks import console
from deepepochs.errors import ArgumentsChanged, ConfigError
from deepepochs.legacy.printing import format_value
from deepepochs.metrics import accuracy
from deepepochs.patches import running as running_values
from deepepochs.show.screens import (
    UNDEFINED,
    Column,
    EpochTable,
    Live,
    Output,
    Screen,
    TextTable,
    cell,
    cut,
    duration,
    number,
    pad,
    plain_text,
    short_name,
    text_width,
    width_of,
)
from deepepochs.show.terminal import TerminalScreen, live_line, understands_ansi

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import read_console
from terminal import Terminal

# --- values and widths


def test_a_metric_of_0_6_is_padded_and_separated_by_one_more_blank() -> None:
    assert info({"loss": 2.2457, "acc": 0.184}) == "loss: 2.2457  acc: 0.1840 "
    assert info({"loss": 2.2457}, 7) == "loss: 2.2457000 "
    assert info({}) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1.0000"),
        (True, "1.0000"),
        (float("nan"), "nan"),
        (torch.tensor(0.25), "0.2500"),
        (torch.tensor(0.25, requires_grad=True), "0.2500"),
        (torch.tensor(0.25).bfloat16(), "0.2500"),
        (np.array(0.25), "0.2500"),
        (np.array([0.5, 1.0]), "[0.5000 1.0000]"),
        (torch.eye(2), "[1.0000 0.0000 0.0000 1.0000]"),
        (np.zeros(0), "[]"),
        (np.arange(7), "[0.0000 1.0000 2.0000 ... 4.0000 5.0000 6.0000]"),
        ("best", "best"),
    ],
)
def test_a_value_is_written_in_short(value: Any, shown: str) -> None:
    assert format_value(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (0.5, "0.5000"),
        (-0.5, "-0.5000"),
        (99.99996, "100.000"),
        (12345.6789, "12345.7"),
        (9999999.0, "9999999"),
        (99999999.0, "1.0e+08"),
        (-123456789.0, "-1e+08"),
        (0.001, "0.0010"),
        (0.00099, "9.9e-04"),
        (-1.5e-300, "-2e-300"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_number_has_at_most_seven_characters(value: float, shown: str) -> None:
    assert number(value) == shown
    assert len(shown) <= 7


def test_a_long_number_has_seven_decimals_and_ten_characters() -> None:
    assert number(0.25, 7) == "0.2500000"
    assert max(len(number(10.0**n, 7)) for n in range(-12, 13)) == 10


def test_a_cell_is_short_whatever_the_value_is() -> None:
    assert cell(np.arange(10.0)) == "[0.00 1.00 … 8.00 9.00]"
    assert cell(torch.tensor([0.25, 0.0001])) == "[0.25 0.00]"
    assert cell("best") == "best"
    assert cell(UNDEFINED) == cell(None) == "–"


def test_a_time_is_in_seconds_up_to_a_minute() -> None:
    times = [duration(s) for s in (0, 1.84, 59.94, 59.96, 61, 3599.6, 36000)]
    assert times == ["0.0s", "1.8s", "59.9s", "1:00", "1:01", "1:00:00", "10:00:00"]


def test_a_long_name_keeps_its_start_and_its_end() -> None:
    assert short_name("accuracy", 8) == "accuracy"
    assert short_name("precision_of_class_1", 12) == "precis…ass_1"
    assert text_width(short_name("多类平衡准确率_1", 9)) <= 9


@pytest.mark.parametrize(
    ("text", "columns", "kept"),
    [("abc", 3, "abc"), ("abcd", 3, "abc"), ("准确率", 4, "准确"), ("准确", 3, "准"), ("a", 0, "")],
)
def test_a_cut_line_fits_the_terminal(text: str, columns: int, kept: str) -> None:
    assert cut(text, columns) == kept
    assert text_width(cut(text, columns)) <= columns


def test_padding_counts_columns_and_not_characters() -> None:
    assert pad("准", 4) == "准  "
    assert text_width("e\u0301") == 1
    assert text_width("\u200b") == 0
    assert pad("abc", 2) == "abc"


# --- the table


def as_text(table: EpochTable, columns: int | None = None, round_to: int = 4) -> str:
    """All rows of a table, as a screen writes them one after the other."""
    laid_out, grown = TextTable(round_to), EpochTable(table.epochs, (table.decides, table.mode))
    lines: list[str] = []
    for row in table.rows:
        values: dict[str, dict[str, Any]] = {"train": {}, "val": {}, "": {}}
        for column, value in row.values.items():
            values[column.stage][column.name] = value
        grown.add(row.epoch, values["train"], values["val"], rates=values[""], seconds=row.seconds)
        for line in laid_out.lines(grown, columns):
            assert columns is None or width_of(line) <= columns
            lines.append("".join(text for _, text in line).rstrip())
    return "\n".join(lines)


def table_of(*epochs: tuple[dict[str, Any], dict[str, Any]], **options: Any) -> EpochTable:
    table = EpochTable(len(epochs), **options)
    for index, (train, val) in enumerate(epochs):
        table.add(index + 1, train, val, seconds=1.25 + 60 * index)
    return table


ONE = ({"loss": 0.4832, "acc": 0.8631}, {"loss": 0.2841, "acc": 0.918})
TWO = ({"loss": 0.2333, "acc": 0.91}, {"loss": 0.3, "acc": 0.91})
BY_VAL = (Column("loss", "val"), "min")


def test_the_names_are_written_once_above_their_numbers() -> None:
    assert as_text(table_of(ONE, TWO, decides=BY_VAL)) == (
        "\n"
        "             loss               acc\n"
        "epoch    train      val    train      val      time  best\n"
        "  1/2   0.4832   0.2841   0.8631   0.9180      1.2s     *\n"
        "  2/2   0.2333   0.3000   0.9100   0.9100      1:01"
    )


def test_a_run_without_validation_has_one_line_of_names() -> None:
    rows = [(train, {}) for train, _ in (ONE, TWO)]
    assert as_text(table_of(*rows)).splitlines()[1:] == [
        "epoch     loss      acc      time  best",
        "  1/2   0.4832   0.8631      1.2s     *",
        "  2/2   0.2333   0.9100      1:01     *",
    ]


def test_the_names_come_again_when_the_columns_change() -> None:
    text = as_text(table_of((ONE[0], {}), ONE, TWO, (ONE[0], {}), decides=BY_VAL))
    assert text.splitlines()[1:] == [
        "epoch     loss      acc      time  best",
        "  1/4   0.4832   0.8631      1.2s",
        "",
        "             loss               acc",
        "epoch    train      val    train      val      time  best",
        "  2/4   0.4832   0.2841   0.8631   0.9180      1:01     *",
        "  3/4   0.2333   0.3000   0.9100   0.9100      2:01",
        "  4/4   0.4832        –   0.8631        –      3:01",
    ]


def test_pooled_values_come_first_then_rates_then_those_of_tasks_and_vectors_last() -> None:
    train = {"recall": np.ones(3), "loss": 1.0, "day/loss": 0.5, "night/loss": 1.5}
    table = table_of((train, {"loss": 2.0, "acc": 0.5}))
    names = [str(column) for column in table.columns]
    assert names == [
        "train loss", "val loss", "val acc", "train day/loss", "train night/loss", "train recall",
    ]  # fmt: skip
    table.add(2, train, {}, rates={"lr": 0.1}, seconds=0.0)
    table.add(3, train, {}, rates={"lr": 0.2}, seconds=0.0)
    assert [str(column) for column in table.columns] == [*names[:3], "lr", *names[3:]]
    assert read_console.rows(as_text(table_of((train, {"loss": 2.0, "acc": 0.5}))))[0].values == {
        ("train", "loss"): "1.0000",
        ("val", "loss"): "2.0000",
        ("val", "acc"): "0.5000",
        ("train", "day/loss"): "0.5000",
        ("train", "night/loss"): "1.5000",
        ("train", "recall"): "[1.00 1.00 1.00]",
    }


MANY = {f"metric_{n}_of_a_long_name": n / 10 for n in range(6)}


@pytest.mark.parametrize("columns", [1, 10, 20, 30, 38, 40, 56, 57, 58, 80, 81, 120, 300])
def test_a_row_is_never_wider_than_the_terminal(columns: int) -> None:
    """``as_text`` looks at each line."""
    rows = [({"loss": 10.0**n, **MANY}, {"loss": -(10.0**n), **MANY}) for n in range(-9, 9)]
    text = as_text(table_of(*rows), columns)
    assert columns < 30 or "1.0e-09" in text


@pytest.mark.parametrize("columns", [57, 70, 74, 75, 76, 120])
def test_the_mark_of_a_part_is_whole_where_the_row_has_no_room_for_it(columns: int) -> None:
    table = EpochTable(2, BY_VAL)
    table.add(1, *ONE, seconds=1.0, part=0.5)
    lines = [plain_text(line) for line in TextTable().lines(table, columns)]
    assert lines[-1].endswith("  (50% of the epoch)")
    assert all(len(line) <= columns for line in lines)


def test_a_fact_that_is_wider_than_the_terminal_goes_on_between_words() -> None:
    class Narrow(Screen):
        def columns(self) -> int:
            return 20

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        Narrow().summary(["3 epochs in 1s", "stopped: the loss was no better"])
    assert stream.getvalue().splitlines() == [
        "3 epochs in 1s", "  stopped: the loss", "  was no better"
    ]  # fmt: skip


def test_what_does_not_fit_is_left_out_from_the_right_and_told_once() -> None:
    rows = [({"loss": 1.0, "acc": 0.5, "f1": 0.5, "auc": 0.5},) * 2] * 2
    lines = as_text(table_of(*rows), 57).splitlines()
    assert lines[1] == "no room for f1, auc: trainer.history has all metrics"
    assert lines[3] == "epoch    train      val    train      val      time  best"
    assert sum("no room" in line for line in lines) == 1
    assert as_text(table_of(*rows), 39).splitlines()[-1] == "  2/2   1.0000   1.0000      1:01"
    assert as_text(table_of(*rows), 38).splitlines()[-1] == "  2/2   1.0000      1:01"
    assert "no room" not in as_text(table_of(*rows), 100)


@pytest.mark.parametrize("rate", [0.000677, 0.00123, 0.0999, 1.23456e-11, 12345.6, 0.1])
@pytest.mark.parametrize("round_to", [4, 7])
def test_a_rate_is_never_cut_inside(rate: float, round_to: int) -> None:
    table = EpochTable(1, changing=["lr"])
    table.add(1, {"loss": 1.0}, {}, rates={"lr": rate}, seconds=0.0)
    *_, line = TextTable(round_to).lines(table, 80)
    text = "".join(part for _, part in line).split()[2]
    assert "…" not in text and float(text) == pytest.approx(rate, rel=0.05)


def test_where_only_validation_has_metrics_its_columns_say_so() -> None:
    lines = as_text(table_of(({}, {"loss": 0.5, "acc": 0.25}))).splitlines()
    assert lines[-2] == "epoch      val      val      time  best"


@pytest.mark.parametrize("epochs", [5, 12, 300, 1000])
def test_the_live_line_begins_as_its_row_does(epochs: int) -> None:
    table = EpochTable(epochs)
    table.add(4, {"loss": 1.0}, {}, seconds=0.0)
    row = as_text(table).splitlines()[-1]
    live = text_of(LIVE._replace(epoch=(4, epochs)), 80)
    assert live.startswith(row[: row.index("/")]) and live.index("/") == row.index("/")


def test_of_very_many_columns_without_room_the_first_are_named() -> None:
    values = {"loss": 1.0, **{f"m{n:02}": 0.5 for n in range(40)}}
    text = as_text(table_of((values, values)), 57)
    told = " ".join(text[: text.index("trainer.history")].split())
    assert told.startswith("no room for m01, m02,")
    assert told.endswith("m11, and 28 more:")


@pytest.mark.parametrize("value", [np.array([0.5]), torch.tensor([[0.5]]), np.float32(0.5)])
def test_a_single_number_in_an_array_says_which_epoch_is_best(value: Any) -> None:
    """As `CheckCallback` follows it."""
    table = table_of(({"loss": 1.0, "m": value}, {}), decides=(Column("m", "train"), "max"))
    assert table.best is not None
    assert table.value_of(table.best) == 0.5


def test_what_cannot_be_compared_is_never_best() -> None:
    for value in (None, "good", 1 + 2j, np.array([0.5, 0.6]), np.array([])):
        table = table_of(({"loss": 1.0, "m": value}, {}), decides=(Column("m", "train"), "max"))
        assert table.best is None


def test_the_learning_rate_has_a_column_once_it_changes() -> None:
    table = EpochTable(3)
    for epoch, rate in enumerate((0.1, 0.1, 2.5e-5)):
        table.add(epoch + 1, {"loss": 1.0}, {}, rates={"lr": rate}, seconds=0.0)
    lines = as_text(table).splitlines()
    assert lines[1] == "epoch     loss      time  best"
    assert lines[-2] == "epoch     loss       lr      time  best"
    assert lines[-1] == "  3/3   1.0000  2.5e-05      0.0s"
    scheduled = EpochTable(1, changing=["lr"])
    scheduled.add(1, {"loss": 1.0}, {}, rates={"lr": 0.1}, seconds=0.0)
    assert [str(column) for column in scheduled.columns] == ["train loss", "lr"]


@pytest.mark.parametrize(
    ("mode", "best"), [("min", [True, False, True, False]), ("max", [True, True, False, False])]
)
def test_a_row_is_marked_when_it_is_better_than_all_before(mode: str, best: list[bool]) -> None:
    table = table_of(
        *[({"acc": v}, {}) for v in (2, 3, 1, 1)], decides=(Column("acc", "train"), mode)
    )
    assert [row.is_best for row in table.rows] == best


def test_a_value_that_is_nan_missing_or_a_vector_is_never_the_best() -> None:
    values: list[Any] = [float("nan"), np.ones(2), 5.0, float("nan"), 4.0]
    table = table_of(({}, {}), *[({"loss": value}, {}) for value in values])
    assert [row.is_best for row in table.rows] == [False, False, False, True, False, True]
    assert table.best is not None and table.best.epoch == 6


# --- the live line


LIVE = Live((2, 12), "train", "", 7, 125, {"loss": 0.25, "acc": 0.5}, (12345.6, "samples"), 62.0)


def text_of(live: Live, columns: int) -> str:
    line = live_line(live, columns)
    assert width_of(line) <= max(columns, 20)
    return "".join(text for _, text in line)


def test_the_live_line_has_all_where_there_is_room() -> None:
    assert text_of(LIVE, 100) == (
        f" 2/12 train ━╸{'─' * 28}   7/125  1:02 left  loss 0.2500  acc 0.5000  12,346/s"
    )


@pytest.mark.parametrize(
    ("columns", "end"),
    [
        (75, "  12,346/s"), (70, "acc 0.5000"), (55, "loss 0.2500"), (43, "1:02 left"),
        (30, "7/125"), (20, "7/125"),
    ],
)  # fmt: skip
def test_the_live_line_loses_what_does_not_fit_from_the_right(columns: int, end: str) -> None:
    assert text_of(LIVE, columns).endswith(end)


def test_a_stream_without_a_length_has_a_count_and_no_bar() -> None:
    live = LIVE._replace(total=None, left_s=None, done=12345)
    assert text_of(live, 80) == " 2/12 train 12,345 batches  loss 0.2500  acc 0.5000  12,346/s"


def test_a_test_and_a_task_are_named() -> None:
    live = LIVE._replace(epoch=None, stage="test", task="night", speed=(2.25, "batches"))
    assert text_of(live, 100).startswith("test night ━")
    assert text_of(live, 100).endswith("  2.2 batches/s")


def test_the_bar_stays_as_long_as_it_is_when_the_speed_is_known() -> None:
    def columns_of_bar(line: str) -> int:
        return line.count("━") + line.count("─")

    first = text_of(LIVE._replace(speed=None, left_s=None), 90)
    assert 0 < columns_of_bar(first) == columns_of_bar(text_of(LIVE, 90))


# --- runs of the real trainer

TIME = r"(?:[\d.]+s|[\d:]+)"  # on a busy machine a minute or more


def points(size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def loader(size: int = 40, batch_size: int = 10) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*points(size)), batch_size=batch_size)


def acc(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds.argmax(1) == targets).float().mean()


def trainer(epochs: int = 2, **options: Any) -> Trainer:
    model = torch.nn.Linear(4, 2)
    options = {"running_id": "r", "device": "cpu", "metrics": acc, **options}
    return Trainer(model, F.cross_entropy, epochs=epochs, **options)


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def open_terminal(columns: int) -> Terminal:
        terminal = Terminal(columns)
        monkeypatch.setattr(sys, "stdout", terminal.stream)
        return terminal

    yield open_terminal


def set_clock(monkeypatch: pytest.MonkeyPatch, now_s: Callable[[], float]) -> None:
    """Replace the clock of the loop, which paces hooks, and that of the console."""
    for module in (console, loop):
        monkeypatch.setattr(module, "monotonic", now_s)


@pytest.fixture
def each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look is a second later, so that every mini-batch is shown."""
    ticks = itertools.count()
    set_clock(monkeypatch, lambda: float(next(ticks)))
    # The looks at metrics come as often, whatever they cost here.
    monkeypatch.setattr(running_values, "REST", 0)


@pytest.mark.usefixtures("each_batch")
def test_a_terminal_shows_every_kind_of_line(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(100)
    made = trainer(epochs=2)
    history = made.fit(loader(), loader(20))
    tested = made.test(loader(30))
    text = terminal.plain()
    bars = r"(?:━|╸|─)+"
    shown = [re.findall(rf"{n}/2 (train|val) {bars} (\d/\d)", text) for n in (1, 2)]
    expected = [("train", f"{n}/4") for n in (1, 2, 3, 4)] + [("val", "1/2"), ("val", "2/2")]
    assert shown == [expected, expected]
    assert re.findall(rf"test {bars} (\d/\d)", text) == ["1/3", "2/3", "3/3"]
    assert re.findall(r"(\d:\d\d) left", text)
    lines = terminal.lines()
    assert lines[0] == "DeepEpochs  Linear, 10 parameters · cpu · Adam, lr 0.001"
    assert lines[1] == "run r"
    rows = read_console.rows("\n".join(lines))
    for stage in ("train", "val"):
        for name in ("loss", "acc"):
            assert [row.values[stage, name] for row in rows] == [
                f"{value:.4f}" for value in history[stage][name]
            ]
    assert lines[-2].startswith("2 epochs in ") and "best epoch 2: val loss" in lines[-2]
    assert re.fullmatch(
        rf"test  loss {tested['loss']:.4f}  acc {tested['acc']:.4f}  {TIME}", lines[-1]
    )


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("columns", [12, 20, 40, 80, 100])
def test_the_live_line_never_wraps_and_leaves_nothing_behind(
    in_terminal: Callable[[int], Terminal], columns: int
) -> None:
    terminal = in_terminal(columns)
    trainer(epochs=2, show_info=False).fit(loader(), loader(20))
    assert terminal.text().count("\r") > 12
    assert "━" not in "".join(terminal.lines())
    rows = [line for line in terminal.lines() if re.match(r" +\d/2", line)]
    assert len(rows) == 2
    if columns >= 40:
        assert terminal.num_wrapped == 0


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("columns", [40, 80])
def test_what_anybody_prints_begins_in_a_line_of_its_own(
    in_terminal: Callable[[int], Terminal], columns: int
) -> None:
    class Talks(Callback):
        def on_after_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
            if batch_idx == 1:
                print("printed")
                terminal.stream.flush()
            elif batch_idx == 2:
                terminal.stream.write("a warning on another stream\n")
                terminal.stream.flush()
            elif batch_idx == 3:
                trainer.print("by", "the trainer")

    terminal = in_terminal(columns)
    trainer(epochs=1, show_info=False, callbacks=Talks()).fit(loader())
    terminal.text()
    lines = terminal.lines()
    said = ["printed", "a warning on another stream", "by the trainer"]
    assert [line for line in lines if line in said] == said
    assert lines[lines.index("by the trainer") - 1] == "a warning on another stream"


def test_a_line_is_rewritten_at_most_ten_times_a_second(
    in_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    set_clock(monkeypatch, lambda: now[0])

    class Clock(Callback):
        def on_before_train_batch(self, **others: Any) -> None:
            now[0] += 0.03

    terminal = in_terminal(100)
    trainer(epochs=1, show_info=False, callbacks=Clock()).fit(loader(1000))
    text = terminal.plain()
    assert re.findall(r" +(\d+)/100", text) == [str(n) for n in range(1, 101, 4)]
    # 10 samples in 0.03 s; 3 mini-batches are left after the last look.
    assert "  333/s" in text
    assert text.count("0:02 left") and "0:00 left" in text


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("options", [{"log_batch": False}, {"console": "rows"}])
def test_rows_are_without_a_live_line(
    in_terminal: Callable[[int], Terminal], options: dict[str, Any]
) -> None:
    terminal = in_terminal(100)
    trainer(show_info=False, **options).fit(loader(), loader())
    assert "━" not in terminal.text() and "\r" not in terminal.text()
    assert len(read_console.rows(terminal.plain())) == 2


@pytest.mark.usefixtures("each_batch")
def test_the_pass_of_each_task_is_shown_with_its_name(
    in_terminal: Callable[[int], Terminal],
) -> None:
    terminal = in_terminal(120)
    made = trainer(epochs=1, show_info=False)
    made.fit(train_tasks=[EpochTask(loader(20), name="day"), EpochTask(loader(30))])
    made.test(tasks=EpochTask(loader(20), name="night"))
    text = terminal.plain()
    assert re.findall(r"train (\w+) \S+ (\d/\d)", text) == [
        ("day", "1/2"), ("day", "2/2"), ("1", "1/3"), ("1", "2/3"), ("1", "3/3"),
    ]  # fmt: skip
    assert re.findall(r"test (\w+) \S+ (\d/\d)", text) == [("night", "1/2"), ("night", "2/2")]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from loader().dataset  # type: ignore[misc]


@pytest.mark.usefixtures("each_batch")
def test_a_stream_is_counted(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(100)
    trainer(epochs=1, show_info=False).fit(DataLoader(Stream(), batch_size=20))
    assert re.findall(r"train (\d) batches  loss", terminal.plain()) == ["1", "2"]


@pytest.mark.usefixtures("each_batch")
def test_an_error_in_a_step_leaves_the_cursor_on_a_line_of_its_own(
    in_terminal: Callable[[int], Terminal],
) -> None:
    class Broken(Trainer):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            if self.run.batch_idx == 2:  # type: ignore[union-attr]
                raise ZeroDivisionError
            return super().train_step(batch_x, batch_y, **step_args)

    terminal = in_terminal(100)
    broken = Broken(torch.nn.Linear(4, 2), F.cross_entropy, epochs=1, show_info=False)
    with pytest.raises(ZeroDivisionError):
        broken.fit(loader())
    assert terminal.text().endswith("\n")
    assert " 2/4 " in terminal.lines()[0] and len(terminal.lines()) == 1


# --- running values


def running(terminal: Terminal, name: str) -> list[float]:
    found = re.findall(rf"\d/4 [^\r\n]*  {name} ({read_console.NUMBER})", terminal.plain())
    return [float(value) for value in found]


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("kind", ["tensor", "mean", "auto"])
def test_loss_and_metrics_are_means_over_the_samples_so_far(
    in_terminal: Callable[[int], Terminal], kind: str
) -> None:
    terminal = in_terminal(100)
    made = trainer(epochs=1, opt=None, show_info=False, metric_patch=kind)
    for weight in made.model.parameters():
        weight.requires_grad_(False).fill_(0.1)
    made.model.weight[0] += torch.tensor([1.0, -1.0, 0.5, 0.0])
    x, y = points(35)  # the last mini-batch has 5 samples
    made.loss_fn = lambda out, target: F.cross_entropy(out, target) + 0 * anchor
    anchor = torch.zeros((), requires_grad=True)
    made.test(DataLoader(TensorDataset(x, y), batch_size=10))
    out = made.model(x)
    ends = [10, 20, 30, 35]
    expected = [F.cross_entropy(out[:end], y[:end]).item() for end in ends]
    assert running(terminal, "loss") == [round(value, 4) for value in expected]
    hits = (out.argmax(1) == y).float()
    means = re.findall(r"\d/4 [^\r\n]*  acc ([\d.]+)", terminal.plain())
    assert [float(value) for value in means] == pytest.approx(
        [hits[:end].mean().item() for end in ends], abs=1e-4
    )


@pytest.mark.usefixtures("each_batch")
def test_each_kept_output_is_looked_at_once_for_the_line(
    in_terminal: Callable[[int], Terminal],
) -> None:
    calls = []

    def counted(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        return acc(preds, targets)

    in_terminal(100)
    trainer(epochs=1, metrics=counted, metric_patch="tensor").fit(loader())
    assert calls == [10, 10, 10, 10, 10, 40], "tried on the first, then the line, then the epoch"


def test_no_metric_is_computed_for_a_line_that_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def counted(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        return acc(preds, targets)

    trainer(epochs=1, metrics=counted).fit(loader())
    assert calls == [10, 40], "tried on the first mini-batch, and computed for the epoch"


@pytest.mark.usefixtures("each_batch")
def test_a_metric_without_a_value_on_so_few_samples_is_a_dash(
    in_terminal: Callable[[int], Terminal],
) -> None:
    def whole(preds: torch.Tensor, targets: torch.Tensor) -> float:
        if len(preds) < 40:
            raise ValueError("too few samples")
        return 0.75

    terminal = in_terminal(100)
    with pytest.warns(RuntimeWarning, match="no value on the first mini-batch"):
        history = trainer(epochs=1, show_info=False, metrics=whole).fit(loader())
    assert re.findall(r"\d/4 [^\r]*  whole (\S+)", terminal.plain()) == ["–"] * 4
    assert history["train"]["whole"] == [0.75]


@pytest.mark.usefixtures("each_batch")
def test_a_metric_that_changes_its_arguments_late_is_an_error_of_the_run(
    in_terminal: Callable[[int], Terminal],
) -> None:
    calls = []

    def sly(preds: torch.Tensor, targets: torch.Tensor) -> float:
        calls.append(1)
        if len(calls) > 2:
            preds.zero_()
        return 0.5

    in_terminal(100)
    with pytest.raises(ArgumentsChanged):
        trainer(epochs=1, show_info=False, metrics=sly).fit(loader())


def drawing(preds: torch.Tensor, targets: torch.Tensor) -> float:
    return float(torch.rand(1)) + random.random() + float(np.random.rand())


def outcome(console: str) -> Any:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
    metrics = [drawing, acc, accuracy]
    made = Trainer(model, F.cross_entropy, epochs=2, metrics=metrics, console=console)
    history = made.fit(loader(), loader(30))
    draws = [torch.rand(1).item(), random.random(), float(np.random.rand())]
    return dict(history), [w.tolist() for w in model.parameters()], draws


@pytest.mark.usefixtures("each_batch")
def test_a_run_that_is_watched_is_the_same_to_the_bit(
    in_terminal: Callable[[int], Terminal],
) -> None:
    unseen = outcome("off")
    terminal = in_terminal(100)
    assert outcome("auto") == unseen
    assert len(re.findall(r"\d/4 [^\r]*drawing \d", terminal.plain())) == 8


@pytest.mark.usefixtures("each_batch")
def test_a_loss_that_is_nan_is_told_and_shown(in_terminal: Callable[[int], Terminal]) -> None:
    class Breaks(Callback):
        def on_before_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
            if batch_idx == 2:
                with torch.no_grad():
                    trainer.model.weight.fill_(float("nan"))

    terminal = in_terminal(100)
    with pytest.warns(RuntimeWarning, match="The loss is nan"):
        trainer(epochs=1, show_info=False, on_nan="warn", callbacks=Breaks()).fit(loader())
    shown = running(terminal, "loss")
    assert len(shown) == 4 and shown[2] != shown[2] and shown[1] == shown[1]


# --- a file or pipe


def test_a_file_gets_the_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=2)
    history = made.fit(loader(), loader())
    made.test(loader())
    text = capsys.readouterr().out
    assert len(text.encode()) < 2000
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert read_console.epochs(text, "val", "loss") == [round(v, 4) for v in history["val"]["loss"]]
    assert len(read_console.tests(text, "loss")) == 1
    assert max(map(len, text.splitlines())) < 80


def test_a_file_has_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = [rename(f"m{n}")(lambda p, t, n=n: n / 10) for n in range(10)]
    trainer(epochs=1, show_info=False, metrics=metrics).fit(loader(), loader())
    (row,) = read_console.rows(capsys.readouterr().out)
    assert len(row.values) == 22
    assert row.values["val", "m9"] == "0.9000"


def test_the_header_comes_once_and_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=1)
    made.fit(loader())
    header = capsys.readouterr().out.splitlines()[:3]
    assert header == ["DeepEpochs  Linear, 10 parameters · cpu · Adam, lr 0.001", "run r", ""]
    made.fit(loader(), epochs=1)
    assert "DeepEpochs" not in capsys.readouterr().out


def test_the_header_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=1, show_info=False).fit(loader())
    assert capsys.readouterr().out.splitlines()[:2] == [
        "",
        "epoch     loss      acc      time  best",
    ]


def test_the_header_counts_frozen_parameters_and_names_all_optimizers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 1000), torch.nn.Linear(1000, 2))
    model[0].weight.requires_grad_(False)
    first = torch.optim.SGD(model[1].parameters(), 0.1)
    second = torch.optim.AdamW([model[0].bias], 2.5e-5)
    made = Trainer(model, F.cross_entropy, [first, second], 1, running_id="r", device="cpu")
    made.fit(loader())
    assert capsys.readouterr().out.startswith(
        "DeepEpochs  Sequential, 7,002 parameters (4,000 frozen) · cpu · SGD, lr 0.1 · AdamW, lr 2.5e-05\n"
    )


def test_the_header_says_that_lazy_modules_have_more(capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 2))
    Trainer(model, F.cross_entropy, epochs=1).fit(loader())
    assert "Sequential, 8 parameters and those of lazy modules" in capsys.readouterr().out


def test_long_output_has_seven_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    history = trainer(epochs=1, show_info=False, log_long=True).fit(loader())
    assert f"  {history['train']['loss'][0]:.7f}  " in capsys.readouterr().out


def test_a_scheduled_rate_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=2, show_info=False)
    opt = torch.optim.SGD(made.model.parameters(), 0.1)
    optimizer = Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 1, 0.5))
    Trainer(made.model, F.cross_entropy, optimizer, 2, show_info=False).fit(loader())
    first, second = read_console.rows(capsys.readouterr().out)
    assert (first.values["", "lr"], second.values["", "lr"]) == ("0.1", "0.05")


def test_a_rate_that_a_hook_changes_has_a_column_from_then_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Halves(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            trainer.opt[0].param_groups[0]["lr"] /= 2

    trainer(epochs=2, show_info=False, callbacks=Halves()).fit(loader())
    first, second = read_console.rows(capsys.readouterr().out)
    assert ("", "lr") not in first.values and second.values["", "lr"] == "0.0005"


# --- tests and tasks


def test_tests_are_told_by_the_names_of_the_tasks_and_pooled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = trainer()
    values = made.test(tasks=[EpochTask(loader(20), name="clean"), EpochTask(loader(40))])
    lines = [re.sub(rf"  {TIME}$", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"test clean  loss {values['clean/loss']:.4f}  acc {values['clean/acc']:.4f}",
        f"test 1      loss {values['1/loss']:.4f}  acc {values['1/acc']:.4f}",
        f"test all    loss {values['loss']:.4f}  acc {values['acc']:.4f}",
    ]


def test_a_test_inside_a_fit_does_not_break_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    class Tests(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            trainer.test(tasks=EpochTask(loader(20), name="half"))

    trainer(epochs=2, show_info=False, callbacks=Tests()).fit(loader())
    text = capsys.readouterr().out
    kinds = [
        "test" if line.startswith("test half  loss") else line[:5] for line in text.splitlines()
    ]
    assert kinds == ["test", "", "epoch", "  1/2", "test", "  2/2", "2 epo"]


def test_the_values_of_tasks_are_columns_with_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tasks = [EpochTask(loader(20), name="day"), EpochTask(loader(30))]
    trainer(epochs=1, show_info=False).fit(loader(), val_tasks=tasks)
    (row,) = read_console.rows(capsys.readouterr().out)
    assert list(row.values) == [
        ("train", "loss"), ("val", "loss"), ("train", "acc"), ("val", "acc"),
        ("val", "day/loss"), ("val", "day/acc"), ("val", "1/loss"), ("val", "1/acc"),
    ]  # fmt: skip


def test_a_test_that_is_too_wide_is_cut(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(40)
    metrics = [rename(f"metric{n}")(lambda p, t: 0.5) for n in range(5)]
    trainer(metrics=metrics, console="rows").test(loader())
    assert re.fullmatch(
        rf"test  loss [\d.]+  …  {TIME}\n",
        terminal.plain(),
    )


# --- how a fit ends


def last_lines(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().out
    return text[text.rindex("\n", 0, text.index(" epoch", text.rindex("best\n"))) :].strip()


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_end_tells_epochs_time_and_the_best(
    epochs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    history = trainer(epochs=epochs).fit(loader(), loader())
    best = min(history["val"]["loss"])
    number = history["val"]["loss"].index(best) + 1
    many = "" if epochs == 1 else "s"
    assert re.fullmatch(
        rf"{epochs} epoch{many} in {TIME} · best epoch {number}: val loss {best:.4f}",
        last_lines(capsys),
    )


def test_the_end_says_where_checkpoints_and_report_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    callbacks = [CheckCallback("acc", on_stage="train"), ReportCallback()]
    trainer(epochs=1, callbacks=callbacks).fit(loader())
    end = last_lines(capsys)
    assert "best epoch 1: train acc" in end
    assert f"checkpoints in {Path('logs/r')} · report {Path('logs/r/report.html')}" in end
    assert (tmp_path / "logs/r/report.html").exists() and (tmp_path / "logs/r/best.ckpt").exists()


def test_the_reason_why_a_fit_was_stopped_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    class Enough(Callback):
        def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx == 1:
                trainer.stop("good enough")

    trainer(epochs=5, show_info=False, callbacks=Enough()).fit(loader())
    assert re.match(
        rf"2 of 5 epochs in {TIME} · stopped: good enough · best epoch", last_lines(capsys)
    )


def test_the_best_is_what_the_check_callback_monitors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = CheckCallback("acc", patience=1, ckpt_dir=tmp_path)
    history = trainer(epochs=9, callbacks=check).fit(loader(), loader(30))
    values = history["val"]["acc"]
    text = capsys.readouterr().out
    marks = [row.is_best for row in read_console.rows(text)]
    assert marks == [value > max(values[:n], default=-1) for n, value in enumerate(values)]
    assert f"best epoch {values.index(max(values)) + 1}: val acc {max(values):.4f}" in text
    told = f"no better for 1 epoch (best {max(values):.4g} in epoch {len(values) - 1})"
    assert f"stopped: val acc was {told}" in " ".join(text.split())


class Interrupts(Callback):
    def __init__(self, kind: signal.Signals, epoch: int = 2, stage: str = "train") -> None:
        super().__init__()
        self.kind, self.epoch, self.at_stage = kind, epoch, stage

    def on_after_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
        if (trainer.init_epoch + 1, batch_idx, str(trainer.stage)) == (
            self.epoch,
            1,
            self.at_stage,
        ):
            signal.raise_signal(self.kind)

    on_after_val_batch = on_after_train_batch


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({"running_id": "r"}, "go on with resume='auto'"),
        ({"running_id": "r", "resume": "auto"}, "go on by starting the script again"),
        ({"running_id": None}, "go on with resume='{id}'"),
    ],
)
def test_after_ctrl_c_it_is_said_where_it_was_stopped_and_how_it_goes_on(
    options: dict[str, Any], way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [Interrupts(signal.SIGINT), CheckCallback("loss", ckpt_dir=tmp_path)]
    made = trainer(epochs=3, callbacks=callbacks, **options)
    with pytest.raises(KeyboardInterrupt) as stopped:
        made.fit(loader(), loader())
    assert stopped.value.__context__ is None or stopped.value.__suppress_context__
    end = last_lines(capsys)
    assert re.match(
        rf"1 of 3 epochs in {TIME} · stopped by Ctrl-C in epoch 2, after 2 mini-batches · best", end
    )
    assert end.endswith(f"checkpoints in {made.run_dir} · {way.format(id=made.running_id)}")


def test_the_end_names_the_folder_of_each_callback_that_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [CheckCallback("loss", ckpt_dir=tmp_path / name) for name in ("one", "two")]
    trainer(callbacks=callbacks).fit(loader(), loader())
    end = last_lines(capsys)
    assert [f"checkpoints in {tmp_path / name / 'r'}" in end for name in ("one", "two")] == [
        True
    ] * 2


@pytest.mark.parametrize(("batch_idx", "where"), [(0, "after 1 mini-batch"), (1, "after 2 mini-b")])
def test_after_a_second_ctrl_c_it_is_said_that_nothing_was_saved(
    batch_idx: int, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(Callback):
        at: int

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == self.at:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    twice = Twice()
    twice.at = batch_idx
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[twice, CheckCallback("loss", ckpt_dir=tmp_path)]).fit(loader(), loader())
    text = capsys.readouterr().out
    assert where in text
    assert text.endswith(" · nothing was saved\n")


def test_after_sigterm_without_checkpoints_it_is_said_that_nothing_is_saved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        trainer(callbacks=Interrupts(signal.SIGTERM, 1, "val")).fit(loader(), loader())
    text = capsys.readouterr().out
    assert "0 of 2 epochs in " in text and "stopped by SIGTERM in epoch 1, in validation" in text
    assert text.endswith("not saved: a CheckCallback saves the state\n")


def test_a_resume_tells_the_run_and_the_place_in_one_line_and_knows_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*callbacks: Callback, **options: Any) -> Any:
        torch.manual_seed(0)
        check = CheckCallback("loss", ckpt_dir=tmp_path)
        options = {"running_id": "r", "callbacks": [*callbacks, check], **options}
        return trainer(epochs=4, **options).fit(loader(), loader())

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupts(signal.SIGINT, 3))
    capsys.readouterr()
    history = fit(resume="auto")
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[1:4] == ["run r", "resuming run r in epoch 3, after 2 mini-batches", ""]
    assert [row.epoch for row in read_console.rows(text)] == ["3/4", "4/4"]
    losses = history["val"]["loss"]
    better = [losses[n] < min(losses[:n]) for n in (2, 3)]
    assert [row.is_best for row in read_console.rows(text)] == better
    assert f"best epoch {losses.index(min(losses)) + 1}: " in text
    fit(resume="auto")
    text = capsys.readouterr().out
    assert "resuming" not in text
    assert text.startswith("running ID r has nothing left to do: 4 of 4 epochs are done")


def test_a_resume_between_epochs_or_in_validation_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = CheckCallback("loss", ckpt_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks=[Interrupts(signal.SIGINT, 1, "val"), check]).fit(loader(), loader())
    capsys.readouterr()
    again = trainer(callbacks=CheckCallback("loss", ckpt_dir=tmp_path), resume=True, epochs=2)
    again.fit(loader(), loader())
    text = capsys.readouterr().out
    assert "resuming run r in epoch 1, in validation, after 2 mini-batches\n" in text
    more = trainer(callbacks=CheckCallback("loss", ckpt_dir=tmp_path), resume=True, epochs=3)
    more.fit(loader(), loader())
    assert "resuming run r at epoch 3\n" in capsys.readouterr().out


def test_after_ctrl_c_in_a_resumed_run_its_epochs_are_counted_from_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(epoch: int) -> str:
        callbacks = [Interrupts(signal.SIGINT, epoch), CheckCallback("loss", ckpt_dir=tmp_path)]
        with pytest.raises(KeyboardInterrupt):
            trainer(epochs=9, callbacks=callbacks, resume="auto").fit(loader(), loader())
        return last_lines(capsys)

    assert fit(3).startswith("2 of 9 epochs in ")
    assert fit(6).startswith("5 of 9 epochs, 3 of them in ")


@pytest.mark.parametrize("columns", [40, 80])
def test_a_sentence_is_broken_between_words(
    columns: int,
    in_terminal: Callable[[int], Terminal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def fit(epochs: int) -> None:
        check = CheckCallback("loss", ckpt_dir="logs")
        made = trainer(epochs=epochs, callbacks=check, running_id="r", resume="auto")
        made.fit(loader(), loader())
        made.test(loader())
        made.load_best()

    terminal = in_terminal(columns)
    for epochs in (2, 2, 1):
        fit(epochs)
    words = " ".join(" ".join(terminal.lines()).split())
    shown = [line.rpartition("\r")[2] for line in terminal.plain().split("\n")]
    too_wide = [line for line in shown if len(line.rstrip()) > columns]
    assert not [line for line in too_wide if " " in line.strip()]  # a path has no words
    assert "has nothing left to do: 2 of 2 epochs are done. To go on, give a larger" in words
    assert "has nothing left to do: 2 epochs are done, and epochs is 1. To go on" in words


def test_ctrl_c_ends_in_one_short_traceback() -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        trainer(callbacks=Interrupts(signal.SIGINT, 1)).fit(loader())
    shown = "".join(traceback.format_exception(stopped.value))
    assert shown.count("Traceback (most recent call last)") == 1
    assert [frame.name for frame in stopped.traceback][1:] == ["fit"]


def test_a_handler_of_the_script_gets_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        trainer(callbacks=Interrupts(signal.SIGTERM, 1)).fit(loader())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


# --- the argument console, and those of 0.6


@pytest.mark.usefixtures("each_batch")
def test_off_shows_nothing_at_all(in_terminal: Callable[[int], Terminal], tmp_path: Path) -> None:
    class Speaks(Callback):
        def on_after_fit(self, trainer: Any) -> None:
            trainer.print("mine")

    terminal = in_terminal(100)
    for resume in (False, "auto"):
        callbacks = [CheckCallback("loss", ckpt_dir=tmp_path), Speaks()]
        made = trainer(epochs=1, console="off", callbacks=callbacks, resume=resume)
        made.fit(loader(), loader())
        made.test(loader())
        made.load_best()
    assert terminal.text() == "mine\n"


@pytest.mark.usefixtures("each_batch")
def test_a_bar_can_be_asked_for_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=1, show_info=False, console="bar").fit(loader())
    text = capsys.readouterr().out
    assert text.count("\r") > 4 and "\x1b" not in text
    assert max(map(len, re.split(r"[\r\n]", text))) < 80
    assert len(read_console.rows(re.sub(r"[^\n]*\r", "", text))) == 1


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("log_batch", [False, True])
def test_with_log_tqdm_the_progress_is_in_the_epoch_and_the_rows_stay(
    in_terminal: Callable[[int], Terminal], log_batch: bool
) -> None:
    terminal = in_terminal(100)
    trainer(epochs=2, show_info=False, log_tqdm=True, log_batch=log_batch).fit(loader())
    assert terminal.text().count("━") > 4
    assert len(read_console.rows("\n".join(terminal.lines()))) == 2


def test_with_log_tqdm_a_file_has_the_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=2, log_tqdm=True).fit(loader())
    out, err = capsys.readouterr()
    assert "\r" not in out and err == ""
    assert len(read_console.rows(out)) == 2


def test_an_argument_for_the_console_that_is_none_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"console='quiet'.*'auto', 'rows', 'bar'"):
        trainer(console="quiet")


def test_a_console_of_the_script_is_told_itself_what_to_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError, match="give it to the callback"):
        trainer(console="off", callbacks=ConsoleCallback())
    made = trainer(callbacks=ConsoleCallback(console="off"))
    made.fit(loader())
    made.note("unheard")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_there_is_no_colour_where_it_is_not_wanted(
    name: str, in_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = in_terminal(60)
    monkeypatch.setenv(name, "dumb")
    trainer(epochs=1).fit(loader())
    text = terminal.text()
    assert "\x1b[2m" not in text and "\x1b[32m" not in text and "━" in text
    assert ("\x1b" in text) is (name == "NO_COLOR")
    assert len(read_console.rows("\n".join(terminal.lines()))) == 1


@pytest.mark.usefixtures("each_batch")
def test_a_terminal_has_dim_names_and_a_green_mark(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(60)
    trainer(epochs=1).fit(loader())
    text = terminal.text()
    assert "\x1b[2mepoch     loss" in text
    assert re.search(r"\x1b\[32m +[\d.]+\x1b\[0m .*\x1b\[32m +\*\x1b\[0m\n", text)


@pytest.mark.parametrize(
    ("system", "environment", "understands"),
    [
        ("posix", {"TERM": "xterm"}, True),
        ("posix", {"TERM": "dumb"}, False),
        ("posix", {}, True),
        ("nt", {}, False),
        ("nt", {"WT_SESSION": "1"}, True),
        ("nt", {"TERM": "xterm"}, True),
    ],
)
def test_control_sequences_are_for_terminals_that_understand_them(
    system: str, environment: dict[str, str], understands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "name", system)
    found = understands_ansi(environment)
    monkeypatch.undo()
    assert found is understands


def test_another_process_than_the_main_one_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "main_process", property(lambda self: False))
    made = trainer(epochs=1)
    made.fit(loader(), loader())
    made.test(loader())
    assert capsys.readouterr().out == ""


# --- streams that fail


class BrokenPipe(io.StringIO):
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise BrokenPipeError("Broken pipe")


def test_a_broken_pipe_costs_one_warning_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = BrokenPipe()
    monkeypatch.setattr(sys, "stdout", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = trainer(epochs=3).fit(loader())
    assert len(history["train"]["loss"]) == 3
    assert [str(w.message)[:33] for w in caught] == ["Standard output cannot be written"]
    assert broken.writes == 1


class Bare:
    """An output that can write, and nothing else."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Ascii(Bare):
    """One that says neither its encoding nor that it is a terminal."""

    def write(self, text: str) -> None:
        text.encode("ascii")
        super().write(text)


@pytest.mark.parametrize("log_tqdm", [False, True])
def test_an_output_needs_no_more_than_a_method_write(
    log_tqdm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Bare()
    monkeypatch.setattr(sys, "stdout", bare)
    made = trainer(epochs=2, log_tqdm=log_tqdm)
    made.fit(loader(), loader())
    made.print("done")
    monkeypatch.undo()
    assert "run r" in bare.text and bare.text.endswith("done\n")
    assert len(read_console.rows(bare.text)) == 2


def test_an_output_without_an_encoding_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Ascii()
    monkeypatch.setattr(sys, "stdout", bare)
    trainer(epochs=1, show_info=False).print("准确率")
    monkeypatch.undo()
    assert bare.text == "\\u51c6\\u786e\\u7387\n"


@pytest.mark.parametrize("fault", [OSError("gone"), AttributeError("gone"), TypeError("gone")])
def test_an_output_may_fail_in_any_way(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Bare):
        def write(self, text: str) -> None:
            raise fault

    monkeypatch.setattr(sys, "stdout", Fails())
    with pytest.warns(RuntimeWarning, match=r"Standard output cannot be written \(gone\)") as met:
        history = trainer(epochs=2).fit(loader(), loader())
    monkeypatch.undo()
    assert len(met) == 1 and len(history["train"]["loss"]) == 2


def test_an_output_that_is_replaced_between_two_fits_is_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, outputs = trainer(epochs=1, show_info=False), [Bare(), Bare()]
    for output in outputs:
        monkeypatch.setattr(sys, "stdout", output)
        made.fit(loader(), epochs=1)
    monkeypatch.undo()
    rows = [row.epoch for output in outputs for row in read_console.rows(output.text)]
    assert rows == ["1/1", "2/2"]


def test_a_closed_or_missing_stdout_does_not_stop_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stdout", stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert len(trainer(epochs=1).fit(loader())["train"]["loss"]) == 1


def test_a_name_that_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Output().write("准: 0.5\n")
    assert raw.getvalue() == b"\\u51c6: 0.5\n"


def test_the_stream_is_looked_up_when_something_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, first, second = Output(), io.StringIO(), io.StringIO()
    for stream in (first, second):
        monkeypatch.setattr(sys, "stdout", stream)
        output.write("x")
    assert (first.getvalue(), second.getvalue()) == ("x", "x")


@pytest.mark.usefixtures("each_batch")
def test_an_encoding_without_the_signs_of_the_bar_has_those_of_ascii(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    trainer(epochs=2, console="bar").fit(loader(), loader(), val_freq=2)
    text = raw.getvalue().decode("ascii")
    monkeypatch.undo()
    assert "Linear, 10 parameters | cpu | Adam" in text
    assert re.search(r"train =+>-+ 2/4", text) and "\\u" not in text


def test_a_terminal_that_tells_no_width_is_taken_as_80_wide(
    in_terminal: Callable[[int], Terminal],
) -> None:
    terminal = in_terminal(0)
    TerminalScreen().live(LIVE._replace(values={"x" * n: 0.5 for n in range(1, 30)}))
    plain = terminal.plain()
    assert plain.startswith("\r") and len(plain) == 81


def test_a_short_line_hides_all_of_the_long_one_before(
    in_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    for term in ("xterm", "dumb"):
        terminal = in_terminal(60)
        monkeypatch.setenv("TERM", term)
        screen = TerminalScreen()
        screen.live(LIVE)
        screen.live(LIVE._replace(total=None, values={}))
        screen.note("short")
        screen.live(LIVE)
        screen.live(LIVE._replace(total=None, left_s=None, values={}, speed=None))
        screen.close()
        terminal.text()
        assert terminal.lines() == ["short", " 2/12 train 7 batches"]


def test_redirected_output_of_a_notebook_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(
        sys.modules,
        "IPython",
        types.SimpleNamespace(get_ipython=lambda: shell),  # type: ignore[arg-type]
    )
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    trainer(epochs=1, show_info=False).fit(loader())
    monkeypatch.undo()
    assert len(read_console.rows(file.getvalue())) == 1


# --- the functions of 0.6


def test_the_functions_print_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log_batch({"loss": 2.28}, 1, 2, 1, 16)
    log_batch({}, 1, 2, 2, 16)
    print_out("")
    log_epoch({"loss": 2.2457}, {"loss": 2.1551}, 1, 2)
    assert capsys.readouterr().out == (
        "\rE 1/2  B  1/16  TRAIN> loss: 2.2800 \nE 1/2  TRAIN> loss: 2.2457   VAL> loss: 2.1551\n"
    )


def test_with_a_bar_the_functions_describe_it(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    with tqdm(total=2, file=io.StringIO()) as bar:
        log_epoch({"loss": 2.2457}, None, 1, 2, tqdm_iter=bar)
        assert bar.desc == "E 1/2  TRAIN> loss: 2.2457"
    assert capsys.readouterr().out == ""


def test_the_console_has_its_name_of_06_and_is_outer_to_callbacks_of_order_1() -> None:
    assert DefaultCallback is ConsoleCallback
    assert ConsoleCallback().order < Callback().order


def test_help_on_the_arguments_of_a_callback_is_that_of_its_class() -> None:
    class Mine(Callback):
        """Mine."""

        def __init__(self) -> None:
            """My own."""
            super().__init__()

    for callback in (CheckCallback, DefaultCallback):
        assert callback.__doc__ and callback.__init__.__doc__ == callback.__doc__
    assert Mine.__init__.__doc__ == "My own."
