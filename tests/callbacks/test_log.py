"""`LogCallback` and `TrackerCallback`: read back with TensorBoard's own reader."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import itertools
import posixpath
import re
import signal
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from event_reader import (
    assert_same_bits,
    loaders,
    outcome,
    read_events,
    run_bits,
    scalars,
    small_trainer,
)
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    EpochTask,
    LogCallback,
    Optimizer,
    TrackerCallback,
    ValuePatch,
)
from deepepochs.callbacks import event_files, event_writer
from deepepochs.callbacks.log import run_tensorboard
from deepepochs.callbacks.trackers import mlflow_names

resource: Any = pytest.importorskip("resource") if sys.platform != "win32" else None


def steps(curve: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in curve]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_with_val_every_the_mini_batches_of_training_keep_their_steps(tmp_path: Path) -> None:
    curves = []
    for name, options in (("a", {}), ("b", {"val_every": 2})):
        trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id=name, **options)
        history = trainer.fit(*loaders())
        curves.append(scalars(tmp_path / name))
    assert curves[1]["loss/batch/train"] == curves[0]["loss/batch/train"]
    within = [step for step in history.steps["val"] if step not in history.steps["train"]]
    assert steps(curves[1]["loss/step/val"]) == within
    num_val = trainer.progress.num_val_batches
    assert steps(curves[1]["loss/batch/val"]) == [*range(1, num_val + 1)]


def test_curves_have_their_tags_steps_and_values(tmp_path: Path) -> None:
    log = LogCallback(tmp_path, every_n_batches=1)
    trainer = small_trainer(callbacks=log, running_id="a")
    history = trainer.fit(*loaders())
    curves = scalars(tmp_path / "a")
    assert set(curves) == {
        "loss/batch/train", "accuracy/batch/train", "loss/batch/val", "accuracy/batch/val",
        "loss/epoch/train", "accuracy/epoch/train", "loss/epoch/val", "accuracy/epoch/val",
        "learning_rate_0/batch/train", "learning_rate_0/epoch/train",
    }  # fmt: skip
    assert steps(curves["loss/batch/train"]) == list(range(1, 13))
    assert steps(curves["loss/batch/val"]) == [1, 2, 3, 4]
    assert steps(curves["loss/epoch/train"]) == steps(curves["loss/epoch/val"]) == [1, 2]
    assert steps(curves["learning_rate_0/batch/train"]) == list(range(12))
    assert steps(curves["learning_rate_0/epoch/train"]) == [0, 1]
    for stage in ("train", "val"):
        logged = [value for _, value in curves[f"loss/epoch/{stage}"]]
        assert logged == pytest.approx([float(v) for v in history[stage]["loss"]])


def shown_together(folder: Path) -> list[list[str]]:
    """The tags of each chart of the tab "Custom scalars", of each time that they were written."""
    events = read_events(folder)
    tag = metadata.CONFIG_SUMMARY_TAG
    found = events.Tensors(tag) if tag in events.Tags()["tensors"] else []
    layouts = [Layout.FromString(event.tensor_proto.string_val[0]) for event in found]
    charts = [chart for layout in layouts for part in layout.category for chart in part.chart]
    return [[series.value for series in chart.margin.series] for chart in charts]


PAIRS = [[f"{name}/epoch/{stage}" for stage in ("train", "val")] for name in ("loss", "accuracy")]


def test_training_and_validation_are_in_one_chart_of_each_metric(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a")
    trainer.fit(*loaders())
    trainer.fit(*loaders(), epochs=2)
    assert shown_together(tmp_path / "a") == PAIRS
    assert {tag for pair in PAIRS for tag in pair} <= scalars(tmp_path / "a").keys()
    assert len(list((tmp_path / "a").glob("*tfevents*"))) == 1


@pytest.mark.parametrize("num_batches", [5, 6, 7, 11])
def test_a_resumed_run_has_each_chart_once(tmp_path: Path, num_batches: int) -> None:
    def trainer(*more: Callback, **arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path, every_n_batches=2)
        callbacks = [check, LogCallback(tmp_path), *more]
        return small_trainer(callbacks=callbacks, running_id="a", **arguments)

    with pytest.raises(MemoryError):
        trainer(KilledAt(num_batches)).fit(*loaders())
    trainer(resume="auto").fit(*loaders())
    assert shown_together(tmp_path / "a") == PAIRS


@pytest.mark.parametrize("kind", ["none", "every second epoch", "two tasks"])
def test_without_one_validation_in_each_epoch_there_is_no_common_chart(
    tmp_path: Path, kind: str
) -> None:
    """The steps are numbers of passes, which would be those of other epochs."""
    train_dl, val_dl = loaders()
    arguments: dict[str, Any] = {
        "none": {},
        "every second epoch": {"val_dl": val_dl, "val_freq": 2},
        "two tasks": {"val_tasks": [EpochTask(val_dl, name=name) for name in "xy"]},
    }[kind]
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a", epochs=4)
    trainer.fit(train_dl, **arguments)
    assert shown_together(tmp_path / "a") == []


def test_each_optimizer_has_its_own_rate_as_it_was_before_the_batch(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    slow = torch.optim.SGD(model.parameters(), lr=0.5)
    fast = torch.optim.SGD(model.parameters(), lr=0.25)
    halving = torch.optim.lr_scheduler.StepLR(slow, 6, gamma=0.5)
    opts = [Optimizer(slow, halving, sched_on="step"), Optimizer(fast)]
    log = LogCallback(tmp_path, every_n_batches=1)
    trainer = small_trainer(model, opt=opts, callbacks=log, running_id="a")
    trainer.fit(loaders()[0])
    curves = scalars(tmp_path / "a")
    assert [v for _, v in curves["learning_rate_0/batch/train"]] == [0.5] * 6 + [0.25] * 6
    assert [v for _, v in curves["learning_rate_0/epoch/train"]] == [0.5, 0.25]
    assert {v for _, v in curves["learning_rate_1/batch/train"]} == {0.25}


def test_several_tasks_count_their_passes_one_by_one(tmp_path: Path) -> None:
    train_dl, val_dl = loaders()
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a")
    trainer.fit(train_tasks=[EpochTask(train_dl), EpochTask(val_dl)])
    curves = scalars(tmp_path / "a")
    assert steps(curves["loss/epoch/train"]) == [1, 2, 3, 4]
    assert steps(curves["loss/batch/train"]) == list(range(1, 17))


def test_a_metric_of_several_numbers_has_a_curve_for_each(tmp_path: Path) -> None:
    def shares(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return preds.softmax(1).mean(0)

    log = LogCallback(tmp_path)
    trainer = small_trainer(callbacks=log, running_id="a", metrics=[shares], epochs=1)
    trainer.fit(loaders()[0])
    curves = scalars(tmp_path / "a")
    assert sum(curves[f"shares[{i}]/epoch/train"][0][1] for i in range(3)) == pytest.approx(1)


def test_every_nth_batch_is_enough_if_asked(tmp_path: Path) -> None:
    log = LogCallback(tmp_path, every_n_batches=4)
    small_trainer(callbacks=log, running_id="a").fit(loaders()[0])
    curves = scalars(tmp_path / "a")
    assert steps(curves["loss/batch/train"]) == [1, 5, 9]
    assert steps(curves["learning_rate_0/batch/train"]) == [0, 4, 8]


def test_by_default_the_loss_of_each_batch_is_written_and_all_values_of_every_50th(
    tmp_path: Path,
) -> None:
    for name, n in (("few", None), ("all", 1)):
        log = LogCallback(tmp_path, every_n_batches=n)
        trainer = small_trainer(callbacks=log, running_id=name, epochs=9)
        torch.manual_seed(5)
        trainer.fit(loaders()[0], loaders()[0])
    few, every = scalars(tmp_path / "few"), scalars(tmp_path / "all")
    assert few.keys() == every.keys()
    for tag, curve in every.items():
        kept = curve
        if "/batch/" in tag and not tag.startswith("loss"):
            kept = [curve[0], curve[50]]
        assert few[tag] == kept, tag
    assert len(every["loss/batch/val"]) == 54


def test_metrics_are_computed_for_the_batches_that_are_written_and_no_others(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def mean(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(len(preds))
        return preds.mean()

    counts = []
    for callbacks in ([], [LogCallback(tmp_path)], [LogCallback(tmp_path, every_n_batches=1)]):
        calls.clear()
        small_trainer(callbacks=callbacks, metrics=[mean], epochs=9).fit(*loaders())
        counts.append(len(calls))
    # 54 mini-batches of training and 18 of validation.
    assert [count - counts[0] for count in counts] == [0, 2 + 1, 54 + 18]


def test_a_loss_that_a_step_returns_is_written_for_each_batch(tmp_path: Path) -> None:
    class Own(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            loss = self.loss(self.model(*batch_x), batch_y)
            return {"loss": ValuePatch(len(batch_y)).load(2 * loss.detach())}

    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a")
    history = trainer.fit(train_tasks=[Own(loaders()[0])])
    curve = scalars(tmp_path / "a")["loss/batch/train"]
    assert steps(curve) == list(range(1, 13))
    means = [sum(value for _, value in curve[i : i + 6]) / 6 for i in (0, 6)]
    assert means == pytest.approx([float(v) for v in history["train"]["loss"]])


def test_each_group_of_weights_has_its_own_rate(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    groups: list[dict[str, Any]] = [
        {"params": model[0].parameters()},
        {"params": model[1].parameters(), "lr": 0.25, "name": "body"},
        {"params": model[2].parameters(), "lr": 0.125},
    ]
    tracker = list_tracker()
    callbacks = [LogCallback(tmp_path), TrackerCallback(tracker)]
    opt = torch.optim.SGD(groups, lr=0.5)
    trainer = small_trainer(model, opt=opt, callbacks=callbacks, running_id="a", epochs=1)
    trainer.fit(loaders()[0])
    curves = scalars(tmp_path / "a")
    rates = {"learning_rate_0": 0.5, "learning_rate_0_body": 0.25, "learning_rate_0_2": 0.125}
    for name, rate in rates.items():
        assert curves[f"{name}/batch/train"] == curves[f"{name}/epoch/train"] == [(0, rate)]
        assert tracker.entries[-1][1][name] == rate


def test_logging_changes_no_bit(tmp_path: Path) -> None:
    assert_same_bits(run_bits(callbacks=LogCallback(tmp_path, log_graph=True)), run_bits())


def test_a_second_fit_goes_on_with_the_curves(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a", epochs=1)
    trainer.fit(*loaders())
    trainer.fit(*loaders(), epochs=2)
    curves = scalars(tmp_path / "a")
    assert steps(curves["loss/epoch/train"]) == [1, 2, 3]
    assert steps(curves["loss/batch/train"]) == list(range(1, 19))
    assert [row["epoch"] for row in rows(tmp_path / "a" / "metrics.csv")] == ["1", "2", "3"]


class KilledAt(Callback):
    """Leaves the fit as a killed process would: without a further hook."""

    def __init__(self, num_batches: int) -> None:
        super().__init__()
        self.num_batches = num_batches

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        if trainer.progress.num_train_batches == self.num_batches:
            raise MemoryError


@pytest.mark.parametrize("watchers", [1, 2])
def test_a_resumed_run_has_every_step_once(tmp_path: Path, watchers: int) -> None:
    def trainer(*more: Callback, **arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path, every_n_batches=4)
        logs = [LogCallback(tmp_path, every_n_batches=1) for _ in range(watchers)]
        return small_trainer(callbacks=[check, *logs, *more], running_id="a", epochs=3, **arguments)

    torch.manual_seed(5)
    with pytest.raises(MemoryError):
        trainer(KilledAt(11)).fit(*loaders())  # the last checkpoint is of batch 8
    killed = scalars(tmp_path / "a")
    assert max(steps(killed["loss/batch/train"])) >= 10
    resumed = trainer(resume="auto")
    resumed.fit(*loaders())
    curves = scalars(tmp_path / "a")
    repeated = watchers  # each of them logs everything
    assert sorted(steps(curves["loss/batch/train"])) == sorted(list(range(1, 19)) * repeated)
    assert sorted(steps(curves["loss/epoch/train"])) == sorted([1, 2, 3] * repeated)
    assert sorted(steps(curves["loss/batch/val"])) == sorted(list(range(1, 7)) * repeated)
    assert sorted(steps(curves["learning_rate_0/batch/train"])) == sorted(
        list(range(18)) * repeated
    )


def test_a_resumed_run_has_the_values_of_one_that_was_never_cut(tmp_path: Path) -> None:
    def trainer(name: str, *more: Callback, **arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path, every_n_batches=4)
        callbacks = [check, LogCallback(tmp_path), *more]
        return small_trainer(callbacks=callbacks, running_id=name, epochs=3, **arguments)

    torch.manual_seed(5)
    trainer("whole").fit(*loaders())
    torch.manual_seed(5)
    with pytest.raises(MemoryError):
        trainer("cut", KilledAt(11)).fit(*loaders())
    trainer("cut", resume="auto").fit(*loaders())
    assert scalars(tmp_path / "cut") == scalars(tmp_path / "whole")
    table = [(tmp_path / name / "metrics.csv").read_text() for name in ("cut", "whole")]
    assert table[0] == table[1]


def test_all_fits_of_a_run_write_to_one_file(tmp_path: Path) -> None:
    trainer = small_trainer(
        callbacks=LogCallback(tmp_path), running_id="a", epochs=1, hyper_params={"lr": 0.1}
    )
    num_open = num_open_files()
    for epochs in range(1, 5):
        trainer.fit(*loaders(), epochs=1)
        trainer.test(loaders()[1])
        assert len(list((tmp_path / "a").glob("*tfevents*"))) == 2  # one of them of the tests
        assert steps(scalars(tmp_path / "a")["loss/epoch/train"]) == list(range(1, epochs + 1))
    assert num_open_files() == num_open
    assert len(scalars(tmp_path / "a")["accuracy"]) == 4


def num_open_files() -> int:
    gc.collect()
    return len(psutil.Process().open_files())


def test_a_run_whose_folder_was_renamed_has_every_step_once(tmp_path: Path) -> None:
    def trainer(name: str, *more: Callback, **arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path, every_n_batches=4)
        callbacks = [check, LogCallback(tmp_path), *more]
        return small_trainer(callbacks=callbacks, running_id=name, epochs=3, **arguments)

    with pytest.raises(MemoryError):
        trainer("old", KilledAt(11)).fit(*loaders())
    (tmp_path / "old").rename(tmp_path / "new")
    trainer("new", resume="auto").fit(*loaders())
    curves = scalars(tmp_path / "new")
    assert steps(curves["loss/batch/train"]) == list(range(1, 19))
    assert steps(curves["learning_rate_0/epoch/train"]) == [0, 1, 2]


def test_a_run_that_begins_with_the_state_of_another_leaves_its_files(tmp_path: Path) -> None:
    def trainer(name: str, epochs: int, **arguments: Any) -> Any:
        callbacks = [CheckCallback("loss", "train", ckpt_dir=tmp_path), LogCallback(tmp_path)]
        return small_trainer(callbacks=callbacks, running_id=name, epochs=epochs, **arguments)

    trainer("first", 2).fit(*loaders())
    old = {path.name: path.read_bytes() for path in (tmp_path / "first").glob("*tfevents*")}
    path = str(tmp_path / "first" / "previous.ckpt")
    trainer("second", 3, resume=path).fit(*loaders())
    assert {p.name: p.read_bytes() for p in (tmp_path / "first").glob("*tfevents*")} == old
    assert steps(scalars(tmp_path / "second")["loss/epoch/train"]) == [2, 3]


def test_a_run_with_a_new_id_has_a_file_of_its_own(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a", epochs=1)
    trainer.fit(*loaders())
    trainer.running_id = "b"
    trainer.fit(*loaders(), epochs=1)
    assert [steps(scalars(tmp_path / n)["loss/epoch/train"]) for n in "ab"] == [[1], [2]]


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trainer = small_trainer(callbacks=LogCallback(tmp_path / "file"), running_id="a")
    with pytest.raises(CallbackException, match=r"cannot write to .*file.*Give another log_dir"):
        trainer.fit(*loaders())


def test_graphs_in_threads_leave_the_output_and_the_warnings_as_they_were(tmp_path: Path) -> None:
    trainers = [
        small_trainer(callbacks=LogCallback(tmp_path, log_graph=True), running_id=n, epochs=1)
        for n in "abcd"
    ]
    trainers.pop().fit(*loaders())  # what torch imports for it changes filters
    output, show, filters = sys.stdout, warnings.showwarning, list(warnings.filters)
    threads = [threading.Thread(target=one.fit, args=loaders()) for one in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, warnings.showwarning) == (output, show) and warnings.filters == filters
    assert all("aten::linear" in str(read_events(tmp_path / n).Graph()) for n in "abc")


def test_a_writer_of_your_own_stays_open(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=LogCallback(tmp_path), running_id="a")
    with SummaryWriter(str(tmp_path / "mine")) as writer:
        trainer.logger = writer
        trainer.fit(*loaders())
        assert trainer.logger is writer and writer.file_writer is not None
    assert steps(scalars(tmp_path / "mine")["loss/epoch/train"]) == [1, 2]
    assert not list((tmp_path / "a").glob("*tfevents*"))


@pytest.mark.skipif(resource is None, reason="needs a limit on the size of files")
def test_a_full_disk_costs_a_warning_and_not_the_run(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, from epoch 1 to the end of epoch 3."""

    def limit(size: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    class Fills(Callback):
        def on_after_epoch(self, epoch_idx: int, **others: Any) -> None:
            if epoch_idx in (0, 2):
                limit(1 if epoch_idx == 0 else resource.RLIM_INFINITY)

    trainer = small_trainer(callbacks=[LogCallback(tmp_path), Fills()], running_id="a", epochs=4)
    try:
        with contextlib.redirect_stdout(io.StringIO()), pytest.warns(RuntimeWarning) as met:
            trainer.fit(*loaders())
    finally:
        limit(resource.RLIM_INFINITY)
    assert [str(one.message).split(" (")[0] for one in met] == [
        "the log for TensorBoard cannot be written",
        "the record of the run cannot be written",
    ]
    assert [row["epoch"] for row in rows(tmp_path / "a" / "metrics.csv")] == ["1", "2", "3", "4"]
    assert steps(scalars(tmp_path / "a")["loss/epoch/train"])[-1] == 4


def test_a_resume_leaves_test_results_and_other_files_alone(tmp_path: Path) -> None:
    def trainer(**arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path)
        return small_trainer(
            callbacks=[check, LogCallback(tmp_path)], running_id="a", hyper_params={"lr": 0.1},
            **arguments,
        )  # fmt: skip

    first = trainer()
    first.fit(loaders()[0])
    first.test(loaders()[1])
    (tmp_path / "a" / "notes.txt").write_text("mine")
    trainer(resume="auto", epochs=3).fit(loaders()[0])
    assert "accuracy" in scalars(tmp_path / "a")
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_what_was_logged_survives_a_kill(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from event_reader import loaders, small_trainer
from deepepochs import Callback, LogCallback

class Kill(Callback):
    def on_before_train_batch(self, trainer, **others):
        if trainer.progress.num_train_batches == 9:
            os.kill(os.getpid(), signal.SIGKILL)

small_trainer(callbacks=[LogCallback({str(tmp_path)!r}), Kill()], running_id="a").fit(*loaders())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    curves = scalars(tmp_path / "a")
    assert steps(curves["loss/epoch/train"]) == [1]
    assert steps(curves["loss/batch/train"])[:6] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in rows(tmp_path / "a" / "metrics.csv")] == ["1"]


def test_the_table_gets_a_row_when_an_epoch_ends_and_a_column_when_one_appears(
    tmp_path: Path,
) -> None:
    seen: list[list[dict[str, str]]] = []

    class Reader(Callback):
        order = 2

        def on_before_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx:
                seen.append(rows(tmp_path / "a" / "metrics.csv"))

    trainer = small_trainer(callbacks=[LogCallback(tmp_path), Reader()], running_id="a", epochs=3)
    history = trainer.fit(*loaders(), val_freq=2)
    assert [len(table) for table in seen] == [1, 2]
    table = rows(tmp_path / "a" / "metrics.csv")
    assert [row["val_loss"] for row in table] == ["", str(history["val"]["loss"][0]), ""]
    assert [float(row["train_loss"]) for row in table] == [
        float(v) for v in history["train"]["loss"]
    ]


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_graph_is_written_and_shows_the_layers(tmp_path: Path, as_dict: bool) -> None:
    log = LogCallback(tmp_path, log_graph=True)
    if as_dict:
        log.example_input = {"input": torch.randn(4, 6)}
    trainer = small_trainer(callbacks=log, running_id="a", epochs=1)
    trainer.fit(loaders()[0])
    graph = str(read_events(tmp_path / "a").Graph())
    assert graph.count("aten::linear") == 2
    assert "aten::batch_norm" in graph
    assert 'name: "Sequential/Linear[0]/weight/' in graph  # with its layer, not beside it
    assert "model" not in graph


def test_the_graph_keeps_the_mode_of_every_layer_and_fires_no_hook(tmp_path: Path) -> None:
    class Forwards(Callback):
        num = 0
        modes: tuple[bool, ...] = ()

        def on_before_train_forward(self, trainer: Any) -> None:
            self.num += 1
            self.modes = tuple(module.training for module in trainer.model.modules())

    watcher = Forwards()
    model = small_trainer().model

    class FrozenNorm(Callback):
        def on_before_train_epoch(self, trainer: Any, task: Any) -> None:
            trainer.model[1].eval()

    callbacks = [FrozenNorm(), LogCallback(tmp_path, log_graph=True), watcher]
    small_trainer(model, callbacks=callbacks, epochs=1).fit(loaders()[0])
    assert watcher.num == 6
    assert watcher.modes == (True, True, False, True, True, True)


def test_a_graph_that_cannot_be_traced_gives_a_warning_and_the_fit_goes_on(tmp_path: Path) -> None:
    log = LogCallback(tmp_path, log_graph=True, example_input=torch.zeros(2, 99))
    trainer = small_trainer(callbacks=log)
    with pytest.warns(RuntimeWarning, match="could not write the graph"):
        assert len(trainer.fit(loaders()[0])["train"]["loss"]) == 2


def test_four_runs_give_the_four_lines_of_the_hparams_table(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import plugin_event_multiplexer
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    results = {}
    for lr in (0.1, 0.01):
        for width in (8, 16):
            name = f"lr{lr}-{width}"
            model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
            params = {"lr": lr, "width": width, "net": "mlp", "dims": (6, 3), "seed": None}
            trainer = small_trainer(
                model, callbacks=LogCallback(tmp_path), running_id=name, hyper_params=params
            )
            trainer.fit(loaders()[0])
            results[name] = trainer.test(loaders()[1])
    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider_ = MultiplexerDataProvider(runs, str(tmp_path))
    context = Context(TBContext(data_provider=provider_, multiplexer=runs))
    request = RequestContext()
    lines = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, lines, [])
    assert {info.name for info in experiment.hparam_infos} == {"lr", "width", "net", "dims", "seed"}
    assert {info.name.tag for info in experiment.metric_infos} >= {"loss", "accuracy"}
    assert set(lines) == set(results)
    for name, values in results.items():
        curves = scalars(tmp_path / name)
        assert curves["accuracy"] == [(2, pytest.approx(float(values["accuracy"])))]
        assert curves["loss"] == [(2, pytest.approx(float(values["loss"])))]


def test_a_test_without_a_fit_logs_its_hyper_parameters(tmp_path: Path) -> None:
    log = LogCallback(tmp_path)
    trainer = small_trainer(callbacks=log, running_id="a", hyper_params={"lr": 0.1})
    trainer.test(loaders()[1])
    assert steps(scalars(tmp_path / "a")["accuracy"]) == [0]


def test_the_callbacks_share_one_writer_which_can_be_used_after_the_fit(tmp_path: Path) -> None:
    loggers = []

    class Own(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            trainer.logger.add_scalar("own", 1.0, 1)
            loggers.append(trainer.logger)

    trainer = small_trainer(callbacks=[LogCallback(tmp_path), Own()], running_id="a")
    trainer.fit(loaders()[0])
    trainer.logger.add_scalar("later", 2.0, 1)
    trainer.close_logger()
    assert loggers == [trainer.logger] * 2
    curves = scalars(tmp_path / "a")
    assert curves["own"] == [(1, 1.0)] * 2
    assert curves["later"] == [(1, 2.0)]


def test_a_writer_that_nobody_closed_is_closed_with_its_trainer(tmp_path: Path) -> None:
    trainer = small_trainer(running_id="a")
    trainer.open_logger(tmp_path).add_scalar("own", 1.0, 1)
    del trainer
    gc.collect()
    assert scalars(tmp_path / "a") == {"own": [(1, 1.0)]}


def test_an_error_in_the_fit_closes_the_file(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=[LogCallback(tmp_path), KilledAt(3)], running_id="a")
    with pytest.raises(MemoryError):
        trainer.fit(loaders()[0])
    assert trainer.logger.file_writer is None


def test_tensorboard_is_run_without_a_shell_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def note(command: list[str], **options: Any) -> Any:
        called.append((command, options))
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(event_files.subprocess, "run", note)
    folder = tmp_path / "my logs; echo"
    assert LogCallback(folder).run_tensorboard("--port=0") == run_tensorboard(folder, "--port=0")
    command, options = called[0]
    assert command == [
        sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", "--port=0",
    ]  # fmt: skip
    assert not options.get("shell")


def test_metrics_held_on_a_device_are_those_of_their_batch(tmp_path: Path) -> None:
    """What an accelerator's run holds back and reads later equals what is read at once."""
    log = LogCallback(tmp_path)
    held = []

    class Hold(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            held.append((metrics.frozen(), dict(metrics)))
            assert dict(metrics.loss_alone()) == {"loss": metrics["loss"]}

    outcome_of = small_trainer(callbacks=[log, Hold()])
    outcome(outcome_of, outcome_of.fit(loaders()[0]))
    assert len(held) == 12
    for later, at_once in held:
        assert {k: float(v) for k, v in later.items()} == {k: float(v) for k, v in at_once.items()}


def list_tracker() -> Any:
    from accelerate.tracking import GeneralTracker

    class Listing(GeneralTracker):
        name = "listing"
        requires_logging_directory = False
        main_process_only = True

        def __init__(self) -> None:
            super().__init__()
            self.entries: list[Any] = []

        @property
        def tracker(self) -> list[Any]:
            return self.entries

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.entries.append(("config", values))

        def log(self, values: dict[str, Any], step: int | None = None, **others: Any) -> None:
            self.entries.append((step, values))

        def finish(self) -> None:
            self.entries.append("finished")

    return Listing()


def test_a_tracker_of_accelerate_gets_parameters_epochs_and_results() -> None:
    tracker = list_tracker()
    callback = TrackerCallback(tracker)
    trainer = small_trainer(callbacks=callback, hyper_params={"lr": 0.1, "dims": (6, 3)})
    history = trainer.fit(*loaders())
    results = trainer.test(loaders()[1])
    callback.finish()
    config, first, second, test, end = tracker.entries
    assert config == ("config", {"lr": 0.1, "dims": "(6, 3)"})
    assert first[0] == 1 and second[0] == 2
    assert first[1]["loss/train"] == float(history["train"]["loss"][0])
    assert second[1]["accuracy/val"] == float(history["val"]["accuracy"][1])
    assert second[1]["learning_rate_0"] == 0.1
    assert test == (2, {f"{name}/test": float(value) for name, value in results.items()})
    assert end == "finished"


def test_a_tracker_gets_batches_if_asked() -> None:
    tracker = list_tracker()
    trainer = small_trainer(callbacks=TrackerCallback(tracker, every_n_batches=3), epochs=1)
    trainer.fit(loaders()[0])
    batches = [step for step, values in tracker.entries if "loss/batch/train" in values]
    assert batches == [1, 4]


def test_a_tracker_that_is_not_known_or_not_installed_is_named() -> None:
    from deepepochs import ConfigError
    from deepepochs.errors import MissingExtraError

    with pytest.raises(ConfigError, match=r"'wanb'.*mlflow.*wandb"):
        TrackerCallback("wanb")
    if find_spec("mlflow") is None:
        trainer = small_trainer(callbacks=TrackerCallback("mlflow"))
        with pytest.raises(MissingExtraError, match="pip install mlflow"):
            trainer.fit(loaders()[0])


class Faulty:
    """Methods of a tracker that fail as often as asked."""

    def __init__(self, **num_faults: int) -> None:
        self.num_faults, self.calls = num_faults, dict.fromkeys(("start", "log", "finish"), 0)

    def call(self, method: str) -> None:
        self.calls[method] += 1
        if self.calls[method] <= self.num_faults.get(method, 0):
            raise ConnectionError("no network")


def faulty_tracker(**num_faults: int) -> tuple[Any, Faulty]:
    tracker, faults = list_tracker(), Faulty(**num_faults)
    log = tracker.log

    def failing_log(values: dict[str, Any], step: int) -> None:
        faults.call("log")
        log(values, step=step)

    tracker.start, tracker.log = lambda: faults.call("start"), failing_log
    tracker.finish = lambda: faults.call("finish")
    return tracker, faults


@pytest.mark.parametrize(
    ("num_faults", "sent"),
    [({}, 5), ({"log": 1}, 4), ({"log": 9}, 0), ({"start": 9}, 0), ({"finish": 1}, 5)],
    ids=str,
)
def test_a_fault_of_a_tracker_costs_one_warning_and_not_the_run(
    num_faults: dict[str, int], sent: int
) -> None:
    tracker, faults = faulty_tracker(**num_faults)
    callback = TrackerCallback(tracker)
    trainer = small_trainer(callbacks=callback, epochs=5)
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        history = trainer.fit(*loaders())
        callback.finish()
    assert len(history["train"]["loss"]) == 5 and len(tracker.entries) == sent
    assert len(met) == bool(num_faults)
    for warned in met:
        assert f"failed to {next(iter(num_faults))} (ConnectionError: no network)" in str(
            warned.message
        )
    if num_faults == {"log": 9}:
        assert faults.calls["log"] == 3  # then it is given up


def test_an_option_that_a_tracker_does_not_know_is_an_error(tmp_path: Path) -> None:
    callback = TrackerCallback("tensorboard", log_dir=tmp_path, no_such_option=1)
    with pytest.raises(TypeError, match="no_such_option"):
        small_trainer(callbacks=callback).fit(loaders()[0])


def test_names_are_those_that_mlflow_accepts_and_stay_apart() -> None:
    given = [
        "acc",
        "acc@1 (%)",
        "recall[0]",
        "recall(0)",
        "a//b",
        "../x",
        "/x",
        "准确率",
        "%",
        "n" * 999,
    ]
    named = mlflow_names({f"{name}/val": index for index, name in enumerate(given)})
    assert list(named.values()) == list(range(len(given)))
    for name in named:
        assert re.fullmatch(r"[/\w.\- ]+", name) and len(name) <= 250
        assert posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    assert list(named)[:4] == ["acc/val", "acc_1/val", "recall_0/val", "recall_0/val_2"]
    assert "准确率/val" in named


def test_a_resumed_tracker_of_tensorboard_has_every_epoch_once(tmp_path: Path) -> None:
    def trainer(*more: Callback, **arguments: Any) -> Any:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path / "ck")
        tracker = TrackerCallback("tensorboard", log_dir=tmp_path, project="runs")
        return small_trainer(
            callbacks=[check, tracker, *more], running_id="a", epochs=3, **arguments
        )

    with pytest.raises(MemoryError):
        trainer(KilledAt(7)).fit(*loaders())  # after one epoch
    trainer(resume="auto").fit(*loaders())
    assert steps(scalars(tmp_path / "runs")["loss/train"]) == [1, 2, 3]


def test_a_tracker_by_name_is_made_for_the_run(tmp_path: Path) -> None:
    callback = TrackerCallback("tensorboard", log_dir=tmp_path, project="runs")
    trainer = small_trainer(callbacks=callback, running_id="a")
    trainer.fit(loaders()[0])
    callback.finish()
    assert steps(scalars(tmp_path / "runs")["loss/train"]) == [1, 2]


def test_files_of_one_second_are_read_in_the_order_of_their_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_writer, "_numbers", itertools.count(9))
    monkeypatch.setattr(event_writer.time, "time", lambda: 1.0)
    for _ in range(2):
        with event_writer.RunWriter(tmp_path) as writer:
            writer.add_scalar("a", 1.0, 1)
    numbers = [int(path.name.split(".")[-1]) for path in sorted(tmp_path.iterdir())]
    assert numbers == [9, 10]
