"""The console: its lines to the character, and what reaches terminals, files and notebooks."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import re
import struct
import sys
import termios
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepepochs import (
    Callback,
    ConsoleCallback,
    DefaultCallback,
    EpochTask,
    Trainer,
    info,
    log_batch,
    log_epoch,
    loop,
    print_out,
)
from deepepochs.callbacks import console
from deepepochs.show.screens import (
    DISPLAY_LINES,
    NotebookScreen,
    Output,
    TerminalScreen,
    batch_line,
    cut,
    epoch_line,
    format_value,
    pad,
    task_line,
    text_width,
)

# --- lines


def test_a_metric_is_padded_and_separated_by_one_more_blank() -> None:
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


def test_the_lines_are_those_of_the_contract() -> None:
    loss = {"loss": 2.28}
    both = {"loss": 2.2457, "acc": 0.184}
    val = {"loss": 2.1551, "acc": 0.3}
    lines = [
        batch_line("TRAIN", loss, (1, 2), (1, 16), (1, 2)),
        batch_line("VAL", loss, (1, 2), (1, 8), (1, 2)),
        epoch_line({"TRAIN": both, "VAL": val}, (1, 2), 1),
        epoch_line({"TRAIN": both, "VAL": {}}, (1, 10), 2),
        batch_line("TEST", loss, (1, 1), (1, 6), (1, 2)),
        task_line(loss, (1, 1), 1),
    ]
    assert lines == [
        "E 1/2  B  1/16  TRAIN> loss: 2.2800 ",
        "E 1/2  B  1/8   VAL> loss: 2.2800 ",
        "E 1/2  TRAIN> loss: 2.2457  acc: 0.1840   VAL> loss: 2.1551  acc: 0.3000 ",
        "E  1/10  TRAIN> loss: 2.2457  acc: 0.1840 ",
        "E 1/1  B  1/6   TEST> loss: 2.2800 ",
        "E 1/1  TEST>  loss: 2.2800 ",
    ]


def test_before_a_fit_the_numbers_are_4_and_5_wide() -> None:
    line = batch_line("TEST", {"loss": 1.0}, (1, 1), (3, 20))
    assert line.startswith("E    1/1     B     3/20     TEST>")


def test_an_unknown_total_is_a_question_mark() -> None:
    assert "B 3/?  TRAIN>" in batch_line("TRAIN", {"loss": 1.0}, (1, 1), (3, None), (1, 1))


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
    assert pad("abc", 2) == "abc"


# --- runs of the real trainer


def loader(size: int = 40, batch_size: int = 10) -> DataLoader[Any]:
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch_size)


def acc(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds.argmax(1) == targets).float().mean()


def trainer(epochs: int = 2, **options: Any) -> Trainer:
    model = torch.nn.Linear(4, 2)
    options = {"running_id": "r", "device": "cpu", "metrics": acc, **options}
    return Trainer(model, F.cross_entropy, epochs=epochs, **options)


class Terminal:
    """The far end of a pseudo-terminal that is `sys.stdout`."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._far, near = os.openpty()
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(near, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self._bytes = bytearray()
        # A daemon: the traceback of a test that fails keeps the stream open.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self._far, 65536)
            except OSError:
                return
            if not got:
                return
            self._bytes += got

    def text(self) -> str:
        """Everything written, with plain line feeds; closes the terminal."""
        self.stream.close()
        self._reader.join()
        os.close(self._far)
        return self._bytes.decode("utf-8").replace("\r\n", "\n")

    def shown(self, text: str) -> list[str]:
        """The lines that a person sees after `text`, without wrapped ones."""
        lines = []
        for line in text.split("\n"):
            seen = ""
            for part in line.split("\r"):
                seen = part + seen[len(part) :]
            lines.append(seen.rstrip())
        return lines


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
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


def pieces(text: str) -> list[str]:
    return [piece.rstrip() for piece in re.split(r"[\r\n]", text) if piece.strip()]


@pytest.mark.usefixtures("each_batch")
def test_a_terminal_shows_every_kind_of_line(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(100)
    made = trainer(epochs=2)
    made.fit(loader(), loader(20))
    made.test(loader(30))
    written = [re.sub(r"\d\.\d{4}", "#", piece) for piece in pieces(terminal.text())]
    train = [f"E 1/2  B {n}/4  TRAIN> loss: #  acc: #" for n in (1, 2, 3, 4)]
    val = [f"E 1/2  B {n}/2  VAL> loss: #  acc: #" for n in (1, 2)]
    epoch = [*train, *val, "E 1/2  TRAIN> loss: #  acc: #   VAL> loss: #  acc: #"]
    test = [f"E 1/1  B {n}/3  TEST> loss: #  acc: #" for n in (1, 2, 3)]
    assert written[6:] == [
        *epoch,
        *(line.replace("E 1/2", "E 2/2") for line in epoch),
        *test,
        "E 1/1  TEST>  loss: #  acc: #",
    ]


@pytest.mark.usefixtures("each_batch")
@pytest.mark.parametrize("columns", [20, 40, 100])
def test_a_line_in_place_never_wraps_and_leaves_nothing_behind(
    in_terminal: Callable[[int], Terminal], columns: int
) -> None:
    terminal = in_terminal(columns)
    made = trainer(epochs=2, show_info=False)
    history = made.fit(loader(), loader(20))
    text = terminal.text()
    assert text.count("\r") > 12
    in_place = [part for line in text.split("\n") for part in line.split("\r")[:-1]]
    assert max(map(len, in_place)) < columns
    expected = [
        epoch_line(
            {stage.upper(): {n: v[idx] for n, v in history[stage].items()} for stage in history},
            (idx + 1, 2),
            1,
        ).rstrip()
        for idx in (0, 1)
    ]
    assert terminal.shown(text) == [*expected, ""]


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
    shown = re.findall(r"B +(\d+)/100", terminal.text())
    assert shown == [str(n) for n in range(1, 101, 4)]


@pytest.mark.usefixtures("each_batch")
def test_without_log_batch_a_terminal_gets_the_epoch_lines_alone(
    in_terminal: Callable[[int], Terminal],
) -> None:
    terminal = in_terminal(100)
    trainer(log_batch=False, show_info=False).fit(loader(), loader())
    assert len(pieces(terminal.text())) == 2


@pytest.mark.usefixtures("each_batch")
def test_mini_batches_are_counted_over_all_tasks(in_terminal: Callable[[int], Terminal]) -> None:
    terminal = in_terminal(100)
    made = trainer(epochs=1, show_info=False)
    made.fit(train_tasks=[EpochTask(loader(20)), EpochTask(loader(30))])
    made.test(tasks=[EpochTask(loader(20)), EpochTask(loader(10))])
    text = terminal.text()
    assert re.findall(r"B (\S+ ?)  TRAIN", text) == [f"{n}/5" for n in range(1, 6)]
    assert re.findall(r"E (\S+)  B (\S+ ?)  TEST", text) == [
        ("1/2", "1/3"),
        ("1/2", "2/3"),
        ("2/2", "3/3"),
    ]
    assert re.findall(r"E (\S+)  TEST> ", text) == ["1/2", "2/2"]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from loader().dataset  # type: ignore[misc]


@pytest.mark.usefixtures("each_batch")
def test_a_total_is_a_question_mark_until_it_is_known(
    in_terminal: Callable[[int], Terminal],
) -> None:
    terminal = in_terminal(100)
    tasks = [EpochTask(DataLoader(Stream(), batch_size=20)), EpochTask(loader(20))]
    trainer(epochs=1, show_info=False).fit(train_tasks=tasks)
    assert re.findall(r"B (\S+)  TRAIN", terminal.text()) == ["1/?", "2/?", "3/4", "4/4"]


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
    text = terminal.text()
    assert "B 2/4" in text
    assert text.endswith("\n")


@pytest.mark.usefixtures("each_batch")
def test_what_the_user_prints_does_not_mix_with_the_line(
    in_terminal: Callable[[int], Terminal],
) -> None:
    class Talks(Callback):
        def on_after_train_epochs(self, trainer: Any, **others: Any) -> None:
            trainer.print("half", "way")

    terminal = in_terminal(100)
    trainer(epochs=1, show_info=False, callbacks=Talks()).fit(loader())
    shown = terminal.shown(terminal.text())
    assert shown[0] == "half way"
    assert shown[1].startswith("E 1/1  TRAIN> loss")


@pytest.mark.usefixtures("each_batch")
def test_a_file_gets_the_epoch_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=2)
    made.fit(loader(), loader())
    made.test(loader())
    text = capsys.readouterr().out
    assert "\r" not in text
    assert len(text.encode()) < 2000
    assert [line[:12] for line in text.splitlines()[6:]] == [
        "E 1/2  TRAIN",
        "E 2/2  TRAIN",
        "E 1/1  TEST>",
    ]


def test_the_header_comes_once_and_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=1)
    made.fit(loader())
    header = capsys.readouterr().out.splitlines()[:6]
    assert header[0] == "=" * 50
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", header[1])
    assert header[2:] == ["device:      cpu", "running ID:  r", "parameters:  10", "-" * 50]
    made.fit(loader(), epochs=1)
    assert "running ID" not in capsys.readouterr().out


def test_the_header_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=1, show_info=False).fit(loader())
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_parameters_that_are_frozen_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=1)
    made.model.bias.requires_grad_(False)
    made.fit(loader())
    assert "parameters:  8\n" in capsys.readouterr().out


def test_long_output_has_seven_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=1, show_info=False, log_long=True).fit(loader())
    assert re.search(r"loss: \d\.\d{7}  acc: \d\.\d{7}\n", capsys.readouterr().out)


def test_an_epoch_without_validation_has_no_val(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(epochs=2, show_info=False).fit(loader(), loader(), val_freq=2)
    first, second = capsys.readouterr().out.splitlines()
    assert "VAL>" not in first
    assert "VAL>" in second


def test_the_reason_why_a_fit_was_stopped_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    class Enough(Callback):
        def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx == 1:
                trainer.stop("good enough")

    trainer(epochs=5, show_info=False, callbacks=Enough()).fit(loader())
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines[:-1]] == ["E 1/5", "E 2/5"]
    assert lines[-1] == "good enough"


def test_no_metric_is_computed_for_a_line_that_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def counted(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(targets))
        return acc(preds, targets)

    trainer(epochs=1, metrics=counted).fit(loader())
    assert calls == [10, 40], "tried on the first mini-batch, and computed for the epoch"


def test_another_process_than_the_main_one_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "main_process", property(lambda self: False))
    made = trainer(epochs=1)
    made.fit(loader(), loader())
    made.test(loader())
    assert capsys.readouterr().out == ""


def test_a_tqdm_bar_is_described_by_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(epochs=2, show_info=False, log_tqdm=True)
    made.fit(loader(), loader())
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"E 2/2  TRAIN> loss: \d\.\d{4}  acc: .* VAL> loss: .*100%\|.*\| 2/2", err)
    assert "B 1/4" not in err


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
    assert "running ID" in bare.text and bare.text.endswith("done\n")
    assert ("E 2/2" in bare.text) is not log_tqdm


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
    assert [output.text.split()[:2] for output in outputs] == [["E", "1/1"], ["E", "2/2"]]


class BrokenBar(io.StringIO):
    """A standard error that fails after a while."""

    def __init__(self, num_writes: int) -> None:
        super().__init__()
        self.num_writes = num_writes

    def write(self, text: str) -> int:
        self.num_writes -= 1
        if self.num_writes < 0:
            raise OSError("gone")
        return super().write(text)


@pytest.mark.parametrize("num_writes", [0, 1, 3])
def test_a_bar_that_cannot_be_drawn_costs_one_warning_and_not_the_training(
    num_writes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", BrokenBar(num_writes))
    with pytest.warns(RuntimeWarning, match=r"Standard error cannot be written \(gone\)") as met:
        history = trainer(epochs=3, show_info=False, log_tqdm=True).fit(loader())
    monkeypatch.undo()
    assert len(met) == 1 and len(history["train"]["loss"]) == 3
    assert ("E 3/3" in capsys.readouterr().out) is (num_writes == 0)  # the bar had the others


@pytest.mark.parametrize("stream", [None, object()])
def test_without_a_standard_error_the_lines_take_the_place_of_the_bar(
    stream: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    trainer(epochs=2, show_info=False, log_tqdm=True).fit(loader())
    monkeypatch.undo()
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == ["E 1/2", "E 2/2"]


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


def test_a_short_line_hides_all_of_the_long_one_before(
    in_terminal: Callable[[int], Terminal],
) -> None:
    terminal = in_terminal(100)
    screen = TerminalScreen()
    for text in ("x" * 30, "x" * 20):
        screen.live(text)
    screen.line("short")
    screen.live("x" * 10)
    screen.live("y")
    assert terminal.shown(terminal.text()) == ["short", "y"]


def test_a_terminal_that_tells_no_width_is_taken_as_80_wide(
    in_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = in_terminal(0)
    TerminalScreen().live("x" * 200)
    assert terminal.text() == "\r" + "x" * 79


# --- notebooks


class Display:
    """Stands for the front end of a notebook: what each display shows now."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.updates = 0

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        place = len(self.texts)
        self.texts.append(content["text/plain"])

        def update(content: dict[str, str], *, raw: bool) -> None:
            self.updates += 1
            self.texts[place] = content["text/plain"]

        return types.SimpleNamespace(update=update)


@pytest.fixture
def in_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Display]:
    front = Display()
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", front)

    class OutStream(io.TextIOBase):
        """As ipykernel's: neither a file nor a terminal."""

    def open_notebook() -> Display:
        monkeypatch.setattr(sys, "stdout", OutStream())
        return front

    return open_notebook


@pytest.mark.usefixtures("each_batch")
def test_a_notebook_has_one_display_that_is_updated(in_notebook: Callable[[], Display]) -> None:
    notebook = in_notebook()
    trainer(epochs=2).fit(loader(), loader())
    assert len(notebook.texts) == 1
    assert notebook.updates > 16
    lines = notebook.texts[0].splitlines()
    assert lines[0] == "=" * 50
    assert [line[:12] for line in lines[6:]] == ["E 1/2  TRAIN", "E 2/2  TRAIN"]


@pytest.mark.usefixtures("each_batch")
def test_the_live_line_of_a_notebook_is_gone_after_the_fit(
    in_notebook: Callable[[], Display],
) -> None:
    notebook = in_notebook()
    made = trainer(epochs=1)
    made.fit(loader())
    made.test(loader())
    assert all(" B " not in text for text in notebook.texts)
    assert notebook.texts[1].startswith("E 1/1  TEST>  loss")


def test_a_full_display_of_a_notebook_is_left_for_a_new_one(
    in_notebook: Callable[[], Display],
) -> None:
    notebook = in_notebook()
    screen = NotebookScreen()
    for number in range(DISPLAY_LINES + 1):
        screen.line(str(number))
    assert [len(text.splitlines()) for text in notebook.texts] == [DISPLAY_LINES, 1]


def test_redirected_output_of_a_notebook_is_a_file(
    in_notebook: Callable[[], Display], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = in_notebook()
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    trainer(epochs=1, show_info=False).fit(loader())
    assert notebook.texts == []
    assert file.getvalue().startswith("E 1/1  TRAIN> loss")


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
