"""Writes an HTML page about a run when the run ends.

::

    trainer = Trainer(model, loss, opt, callbacks=ReportCallback())
    trainer.fit(train_dl, val_dl)       # logs/<running_id>/report.html
    trainer.test(test_dl)               # written again, with the results of the test

``trainer.report()`` writes the page at any time, without the callback.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..files.atomic import write_text
from ..report import run_page, sample_picture
from ..report.text import short
from ..runs.record import PICTURES, REPORT, Curve, RunInfo, plain, read_json, write_json
from ..show.screens import spread, to_array
from .interpret import InterpretCallback
from .run_record import RunRecordCallback, recorders

if TYPE_CHECKING:
    from ..contracts import TrainerView
    from ..history import History

MAX_SAMPLES = 24
MAX_SIZE = 8  # at most this many entries of an output or a target are written beside a sample


class ReportCallback(RunRecordCallback):
    """Writes ``report.html`` to the run's folder at the end of a fit and of a test.

    The page is one file without scripts, and needs no network. It has the curves, metrics,
    settings, model and machine, the folder and the command line of the run, and the confusion
    matrix and samples of an ``InterpretCallback`` if there is one. Values of options that are
    named like a password are left out of the command. What ``trainer.check`` has found before the
    fit is there, too. The callback also writes the run's record.

    Args:
        log_dir: the folder of the runs.
    """

    order = -2  # last in `after_` hooks: the other callbacks have recorded how the run ended

    def files_of(self, trainer: TrainerView) -> dict[str, Path]:
        return {"report": self.folder(trainer) / REPORT}

    def on_after_fit(self, trainer: TrainerView) -> None:
        super().on_after_fit(trainer)
        write_report(trainer, self.folder(trainer) / REPORT)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        super().on_exception(trainer, exception)
        if trainer.history.epochs:
            write_report(trainer, self.folder(trainer) / REPORT)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Write the page, unless the test runs inside a fit."""
        super().on_after_test_epochs(trainer, tasks, metrics)
        if trainer.session is None or trainer.session.fit is None:
            write_report(trainer, self.folder(trainer) / REPORT)


def write_report(trainer: TrainerView, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a trainer's run, in the main process only, and return its path.

    Without a path it is ``report.html`` in the run's folder. The pictures are saved there too, so
    that ``deepepochs report`` can write the page again.
    """
    folder = trainer.run_dir
    target = folder / REPORT if path is None else Path(path)
    if not trainer.main_process:
        return target
    pictures = gather_pictures(trainer)
    if target.parent == folder:
        pictures = {**read_json(folder / PICTURES), **pictures}
        if pictures:
            write_json(folder / PICTURES, pictures)
    record = next(iter(recorders(trainer)), RunRecordCallback()).record(trainer)
    state = str(record.get("state", "finished" if trainer.session is None else "running"))
    curves, home = gather_curves(trainer.history), folder if folder.is_dir() else None
    run = RunInfo(trainer.running_id, state, record, curves, pictures, home)
    write_text(target, run_page(run))
    return target


def gather_curves(history: History) -> dict[str, dict[str, Curve]]:
    """Return the curves of a history, one for each entry of a metric."""
    curves: dict[str, dict[str, Curve]] = {}
    for stage, epochs in (("train", history.epochs), ("val", history.val_epochs)):
        for name, values in history.get(stage, {}).items():
            for epoch_idx, value in zip(epochs, values, strict=True):
                for entry, number in spread({name: value}):
                    table = curves.setdefault(stage, {})
                    table.setdefault(entry, []).append((epoch_idx + 1, float(number)))
    return curves


def gather_pictures(trainer: TrainerView) -> dict[str, Any]:
    """Return the matrix and samples of the first ``InterpretCallback``, as plain values."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, InterpretCallback)]
    if not found:
        return {}
    interpret = found[0]
    pictures: dict[str, Any] = {}
    matrix, names = interpret.confusion_matrix, interpret.class_names
    if matrix is not None:
        stage = next(s for s, other in interpret.matrices.items() if other is matrix)
        if names is not None and len(names) != len(matrix):
            names = None
        pictures["confusion"] = {"counts": matrix.tolist(), "names": names, "stage": str(stage)}
    samples = interpret.top_samples()[:MAX_SAMPLES]
    if samples:
        pictures["samples"] = [_sample(sample, names) for sample in samples]
        size = "largest" if samples[0][0] >= samples[-1][0] else "smallest"
        metric = getattr(interpret.metric, "__name__", type(interpret.metric).__name__)
        pictures["samples_title"] = f"Samples with the {size} {metric}"
    drawn: dict[str, Any] = plain(pictures)
    return drawn


def _sample(sample: list[Any], names: list[str] | None) -> dict[str, Any]:
    value, output, target, batch_x = sample
    return {
        "value": short(float(value)),
        "pred": _class_or_values(output, names, is_output=True),
        "target": _class_or_values(target, names),
        "picture": sample_picture(batch_x),
    }


def _class_or_values(value: Any, names: list[str] | None, is_output: bool = False) -> str | None:
    """Return a class by name, scores by their largest class, other values as text."""
    if not isinstance(value, Tensor):
        return None if value is None else str(plain(value))
    array = to_array(value).reshape(-1)
    if is_output and value.ndim == 1 and len(array) > 1:
        array = np.array([array.argmax()])
    if len(array) == 1 and array.dtype.kind in "iu":
        index = int(array[0])
        return names[index] if names is not None and 0 <= index < len(names) else str(index)
    shown = " ".join(short(float(entry)) for entry in array[:MAX_SIZE])
    return f"{shown} …" if len(array) > MAX_SIZE else shown
