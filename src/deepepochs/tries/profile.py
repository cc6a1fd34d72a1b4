"""Tells where the time of some training steps goes: parts of the step, and operations.

::

    print(trainer.profile(train_dl, path="trace.json"))
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..arguments import check_count
from ..callbacks.timing import TimingCallback
from ..errors import ConfigError
from ..fit.plan import as_task, plan_try
from ..fit.session import Kind
from ..loop import run_pass
from ..nest.samples import BatchSize
from ..runtime.base import in_main_process
from ..show.screens import cut, terminal_columns
from ..show.tables import html_table
from ..show.terminal import rate
from ..stages import Stage
from ..task import EpochTask

WARM_UP = 3  # steps before the first that is measured
MOST_ROWS = 10  # operations that are printed
WORDS = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "step": "optimizer",
    "other": "everything else",
}


class Operation(NamedTuple):
    """What an operation of PyTorch took in all measured steps.

    Attributes:
        name: as PyTorch calls it, such as ``'aten::addmm'``.
        calls: how often it was called.
        seconds: without the operations that it calls; on a GPU those of the GPU.
    """

    name: str
    calls: int
    seconds: float


class Profile:
    """What ``trainer.profile()`` gives; it prints as two tables.

    Attributes:
        steps: the mini-batches that were measured.
        parts: seconds by part: ``'data'`` (waiting for the loader, and moving its mini-batch to
            the device), ``'forward'``, ``'backward'``, ``'step'`` (the optimizer), ``'other'``.
        operations: the operations, the dearest first.
        num_samples: the samples of these mini-batches in this process; ``None`` if they are not
            known.
        path: the file of the trace, or ``None``.
    """

    def __init__(
        self,
        steps: int,
        parts: dict[str, float],
        operations: list[Operation],
        num_samples: int | None = None,
        path: Path | None = None,
    ) -> None:
        self.steps = steps
        self.parts = parts
        self.operations = operations
        self.num_samples = num_samples
        self.path = path

    def __str__(self) -> str:
        names = [[name, *cells] for name, *cells in self._rows()]
        room = max(terminal_columns() - sum(14 for _ in names[0][1:]), 10)
        wide = min(max(len(name) for name, *_ in names), room)
        lines = [self._title(), ""]
        for name, *cells in names:
            shown = name if len(name) <= wide else f"{cut(name, wide - 1)}…"
            lines.append(f"{shown:<{wide}}{''.join(f'{cell:>14}' for cell in cells)}".rstrip())
        lines += [] if self.path is None else ["", f"trace: {self.path}"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        return html_table([self._title()], []) + html_table(head, (row for row in rows if row[0]))

    def _title(self) -> str:
        seconds = sum(self.parts.values())
        title = f"{self.steps} steps of {milliseconds(seconds / self.steps)}"
        if self.num_samples and seconds:
            title += f", {rate(self.num_samples / seconds)} samples/s"
        return title

    def _rows(self) -> Iterator[list[str]]:
        """Yield the parts and the operations, with the time for each step."""
        whole = sum(self.parts.values()) or 1.0
        yield ["part", "each step", "share", ""]
        for part, word in WORDS.items():
            seconds = self.parts[part]
            yield [word, milliseconds(seconds / self.steps), f"{seconds / whole:.0%}", ""]
        yield ["", "", "", ""]
        all_s = sum(operation.seconds for operation in self.operations) or 1.0
        yield ["operation", "each step", "share", "calls a step"]
        for name, calls, seconds in self.operations[:MOST_ROWS]:
            each = f"{calls / self.steps:.3g}"
            yield [name, milliseconds(seconds / self.steps), f"{seconds / all_s:.0%}", each]
        if (rest := len(self.operations) - MOST_ROWS) > 0:
            seconds = sum(operation.seconds for operation in self.operations[MOST_ROWS:])
            each_s = milliseconds(seconds / self.steps)
            yield [f"{rest} others", each_s, f"{seconds / all_s:.0%}", ""]


def milliseconds(seconds: float) -> str:
    """Return a short time.

    >>> milliseconds(0.0123), milliseconds(2e-5)
    ('12.3 ms', '20 µs')
    """
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-4 else f"{1e3 * seconds:,.3g} ms"


def _begins(hook: str, region: str) -> Any:
    """Make a hook of timing that also begins a region of the trace."""
    timed = getattr(TimingCallback, hook)

    def begin(self: StepWatch, **others: Any) -> None:
        timed(self, **others)
        self.open_region(region)

    return begin


class StepWatch(TimingCallback):
    """Times the parts of steps, marks them in the trace, and ends after enough of them."""

    meets_fillers = True

    def __init__(self, steps: int, device: torch.device) -> None:
        super().__init__(self.now)
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.profiler: Any = profile(activities=activities)
        self.done = False
        self.num_samples: int | None = 0
        self._device = device
        self._steps = steps
        self._num_done = 0
        self.parts: dict[str, float] = {}
        self._region: Any = None

    def now(self) -> float:
        """Return the seconds of a clock, when the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def open_region(self, name: str) -> None:
        """Begin a region of the trace."""
        self._region = record_function(name)
        self._region.__enter__()

    def close_region(self) -> None:
        """End the region, if there is one."""
        region, self._region = self._region, None
        if region is not None:
            region.__exit__(None, None, None)

    def _end(self, part: str) -> None:
        self.close_region()
        super()._end(part)

    on_before_train_epoch = _begins("on_before_train_epoch", WORDS["data"])
    on_before_train_batch = _begins("on_before_train_batch", WORDS["forward"])
    on_before_backward = _begins("on_before_backward", WORDS["backward"])
    on_before_optimize = _begins("on_before_optimize", WORDS["step"])

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self._end("other")
        if self.done:  # several processes stop some mini-batches later
            return
        self._num_done += 1
        if self._num_done > WARM_UP:
            self._count(0 if trainer.run.is_filler else trainer.run.num_samples)
        if self._num_done == WARM_UP:
            self.profiler.start()
            self._end("other")  # to start it is part of no step
            self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        elif self._num_done == WARM_UP + self._steps:
            self.profiler.stop()
            self.done = True
            self.parts = {part: self.seconds[part] for part in WORDS}
            trainer.stop("steps measured")
            return
        self.open_region(WORDS["data"])

    def _count(self, num_samples: int | None) -> None:
        known = self.num_samples is not None and num_samples is not None
        self.num_samples = self.num_samples + num_samples if known else None  # type: ignore[operator]

    def close(self) -> None:
        """End what an error has left open."""
        self.close_region()
        if self._num_done >= WARM_UP and not self.done:
            self.profiler.stop()

    def operations(self) -> list[Operation]:
        """Return the operations, the dearest first."""
        on_device = self._device.type == "cuda"
        found = []
        for event in self.profiler.key_averages():
            # The kernels of a GPU are listed once more, beside the operations that start them.
            is_operation = event.device_type.name == "CPU"
            if not is_operation or event.key in WORDS.values() or event.key == STARTING:
                continue
            micros = event.self_device_time_total if on_device else event.self_cpu_time_total
            found.append(Operation(event.key, event.count, micros / 1e6))
        return sorted(found, key=lambda operation: -operation.seconds)


STARTING = "PyTorch Profiler (0)"


def profile_steps(
    trainer: Any, data: Any, steps: int, path: str | PathLike[str] | None, batch_size: BatchSize
) -> Profile:
    """Profile some training steps, and put everything back.

    Raises:
        ConfigError: an argument cannot be right.
        LoopException: the data or the model fail, as in a fit.
    """
    check_count("steps", steps, 1)
    file = None if path is None else checked_path(path)
    task = data if isinstance(data, EpochTask) else as_task(data, "train_dl", batch_size)
    plan = plan_try(trainer, [task])
    watch = StepWatch(steps, trainer.device)
    try:
        with trainer.trying(Kind.PROFILE, plan, watch) as session:
            while not watch.done:
                run_pass(session, task, Stage.TRAIN)
    finally:
        watch.close()
    if file is not None:
        in_main_process(trainer.runtime, "write the trace", write_trace, watch.profiler, file)
    return Profile(steps, watch.parts, watch.operations(), watch.num_samples, file)


def checked_path(path: str | PathLike[str]) -> Path:
    """Return the path of a trace, or raise ``ConfigError``: the viewers go by the ending."""
    file = Path(path)
    if not file.name.endswith((".json", ".json.gz")):
        raise ConfigError(
            f"path={str(path)!r}: give a file that ends in .json or .json.gz, such as 'trace.json'; "
            "for TensorBoard '.pt.trace.json'."
        )
    return file


def write_trace(profiler: Any, file: Path) -> None:
    """Write what a profiler has recorded."""
    file.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(file))
