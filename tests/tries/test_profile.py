"""`trainer.profile()`: the parts of a step, the operations, the trace, and no trace of its own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, ConfigError, EpochTask, LogCallback, StepError, Trainer
from deepepochs.nest.compare import digest
from deepepochs.tries.profile import Operation, Profile

DATA = TensorDataset(torch.randn(48, 6), torch.arange(48) % 3)


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(DATA, 8, **options)


def trainer(**options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    options = {"epochs": 2, "console": "off", "device": "cpu", **options}
    return Trainer(model, F.cross_entropy, opt, **options)


class Counting(Callback):
    acts_in_tries = True

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def on_after_optimize(self, **others: Any) -> None:
        self.num += 1


def test_so_many_steps_are_measured_after_three_others() -> None:
    counting = Counting()
    profile = trainer(callbacks=counting).profile(loader(), steps=7)
    assert counting.num == 3 + 7
    assert (profile.steps, profile.num_samples) == (7, 56)
    calls = {operation.name: operation.calls for operation in profile.operations}
    assert calls["aten::addmm"] == 2 * 7
    assert list(profile.parts) == ["data", "forward", "backward", "step", "other"]
    assert all(seconds > 0 for seconds in profile.parts.values())


def test_the_operations_are_those_of_the_whole_step_the_dearest_first() -> None:
    operations = trainer().profile(loader(), steps=4).operations
    names = [operation.name for operation in operations]
    assert {"aten::addmm", "aten::nll_loss_forward", "AddmmBackward0"} <= set(names)
    assert any(name.startswith("Optimizer.step#SGD") for name in names)
    assert not {"forward", "backward", "optimizer", "waiting for data"} & set(names)
    seconds = [operation.seconds for operation in operations]
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("name", ["deep/trace.json", "trace.json.gz", "run.pt.trace.json"])
def test_the_trace_is_a_chrome_trace_with_the_parts_of_the_steps(name: str) -> None:
    profile = trainer().profile(DataLoader(DATA, 6), 4, name)
    assert profile.path == Path(name)
    with (gzip.open if name.endswith("gz") else open)(name) as file:
        events = json.load(file)["traceEvents"]
    counts = dict.fromkeys(("waiting for data", "forward", "backward", "optimizer"), 0)
    for event in events:
        if event.get("cat") == "user_annotation" and event["name"] in counts:
            counts[event["name"]] += 1
    assert counts == {"waiting for data": 4, "forward": 4, "backward": 4, "optimizer": 4}
    assert str(profile).endswith(f"trace: {name}")


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    assert trainer(callbacks=LogCallback()).profile(loader(), 2).path is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fit_after_it_is_the_fit_without_it(num_workers: int) -> None:
    def fit(*, profiles: bool) -> Any:
        one = trainer()
        torch.manual_seed(9)
        data = loader(shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)
        if profiles:
            one.profile(data, steps=5)
        losses = one.fit(data)["train"]["loss"]
        return (
            losses,
            digest(one.model.state_dict()),
            digest(one.opt.state_dict()),
            one.history.timing,
        )

    assert fit(profiles=True) == fit(profiles=False)


def test_a_task_is_profiled_with_its_own_step() -> None:
    class Twice(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.call_model(batch_x)
            self.loss(self.call_model(batch_x), batch_y)

    profile = trainer().profile(Twice(loader()), 4)
    calls = {operation.name: operation.calls for operation in profile.operations}
    assert calls["aten::addmm"] == 4 * 4


def test_an_error_in_a_step_ends_the_profiler_and_leaves_no_trace() -> None:
    class Failing(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.call_model(batch_x), batch_y)
            if self.run is not None and self.run.batch_idx == 4:
                raise ZeroDivisionError

    one = trainer()
    before = digest(one.model.state_dict())
    with pytest.raises(ZeroDivisionError):
        one.profile(Failing(loader()))
    assert digest(one.model.state_dict()) == before
    assert not torch.autograd.profiler._is_profiler_enabled
    assert one.profile(loader(), 2).steps == 2


def test_inside_of_a_fit_it_changes_nothing() -> None:
    def losses(*, looks: bool) -> Any:
        class Looking(Callback):
            def on_after_epoch(self, trainer: Any, **others: Any) -> None:
                if looks:
                    trainer.profile(loader(), 2)

        one = trainer(callbacks=Looking())
        torch.manual_seed(9)
        return one.fit(loader(shuffle=True))["train"]["loss"]

    assert losses(looks=True) == losses(looks=False)


PARTS = {"data": 0.5, "forward": 0.25, "backward": 0.125, "step": 0.125, "other": 0.0}


def test_it_prints_the_parts_and_the_operations_of_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    operations = [Operation(f"aten::{index}", 20, 0.1) for index in range(12)]
    assert str(Profile(10, PARTS, operations, 640)).split("\n") == [
        "10 steps of 100 ms, 640 samples/s",
        "",
        "part                 each step         share",
        "waiting for data         50 ms           50%",
        "forward                  25 ms           25%",
        "backward               12.5 ms           12%",
        "optimizer              12.5 ms           12%",
        "everything else           0 µs            0%",
        "",
        "operation            each step         share  calls a step",
        *(
            f"aten::{index}                  10 ms            8%             2"
            for index in range(10)
        ),
        "2 others                 20 ms           17%",
    ]


def test_it_fits_the_terminal_and_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    profile = Profile(10, PARTS, [Operation("x<" + "y" * 90, 20, 0.1)])
    assert max(map(len, str(profile).split("\n"))) <= 70
    assert "x&lt;y" in profile._repr_html_() and repr(profile) == str(profile)


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"path='trace': give a file that ends in \.json"):
        trainer().profile(loader(), path="trace")
    with pytest.raises(ConfigError, match="steps=0: give an int of at least 1"):
        trainer().profile(loader(), 0)
    with pytest.raises(ConfigError, match="train_dl is a data set, TensorDataset"):
        trainer().profile(DATA)
    with pytest.raises(StepError, match="wants 6 features"):
        trainer().profile([(torch.ones(8, 4), torch.zeros(8).long())])
