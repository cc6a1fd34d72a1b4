"""What a step records reaches the metrics as it was, whatever the step does around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepepochs import (
    Callback,
    ConsoleCallback,
    EpochTask,
    PatchError,
    TensorPatch,
    Trainer,
    ValuePatch,
    loop,
)
from deepepochs.callbacks.base import paced

# Four mini-batches of two samples, whose outputs are 0, 1, 2 and 3.
DATA = [(torch.full((2, 1), float(i)), torch.zeros(2, 1)) for i in range(4)]


class Same(nn.Module):
    """Gives its input, for a weight that stays 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def mean_out(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def other_metric(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean() * 0 + 100


def trained(task: EpochTask | None = None, kind: type[Trainer] = Trainer, **options: Any) -> Any:
    """The training metrics of one epoch in which no weight changes."""
    model = Same()
    trainer = kind(
        model,
        nn.functional.mse_loss,
        torch.optim.SGD(model.parameters(), lr=0.0),
        **{"epochs": 1, "show_info": False, "metrics": mean_out, **options},
    )
    history = trainer.fit(train_tasks=EpochTask(DATA) if task is None else task)
    return {name: float(values[-1]) for name, values in history["train"].items()}


def task_with(step: Callable[..., Any]) -> EpochTask:
    task_class: Any = type("MyTask", (EpochTask,), {"step": step})
    task: EpochTask = task_class(DATA)
    return task


def test_a_patch_that_a_step_writes_down_itself_leaves_the_metrics_alone() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.batch_patch_dict["mine"] = ValuePatch(2).load(1.0)
        self.loss(self.model(*batch_x), batch_y)

    assert trained(task_with(step)) == {"loss": 3.5, "mean_out": 1.5, "mine": 1.0}


def test_a_patch_that_a_step_takes_away_does_not_count() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x), batch_y)
        if batch_x[0][0] > 1:
            del self.batch_patch_dict["mean_out"]

    assert trained(task_with(step))["mean_out"] == 0.5


def test_a_patch_of_another_metric_under_a_planned_name_is_an_error() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any) -> Any:
        out = self.model(*batch_x)
        self.loss(out, batch_y)
        is_first = float(batch_x[0][0]) == 0
        return {"mean_out": TensorPatch(other_metric).load(out, batch_y)} if is_first else None

    with pytest.raises(PatchError, match="two metrics"):
        trained(task_with(step))


def test_what_becomes_of_outputs_after_they_were_recorded_does_not_matter() -> None:
    class Graph:
        """An object that detaches itself in place, as those of torch_geometric do."""

        def __init__(self, x: Tensor) -> None:
            self.x = x

        def detach(self) -> Graph:
            self.x = self.x.detach()
            return self

    def mean_of_graphs(outputs: Any, targets: Any) -> Any:
        return torch.cat([graph.x for graph in outputs]).mean() + targets.ndim

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        graph, targets = Graph(self.model(*batch_x)), batch_y.clone()
        value = self.loss_fn(graph.x, targets)
        self.backward(value)
        self.optimize()
        self.do_metric(value, graph, targets)
        graph.x = graph.x * 0 - 5
        targets.unsqueeze_(0)

    assert trained(task_with(step), metrics=mean_of_graphs)["mean_of_graphs"] == 1.5 + 2


def test_metrics_that_a_hook_has_kept_stay_those_of_their_mini_batch() -> None:
    class Keeper(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[Any] = []

        def on_after_train_batch(self, metrics: Any, **others: Any) -> None:
            self.kept.append(metrics)

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        records = float(batch_x[0][0]) % 2 == 1
        out = self.model(*batch_x)
        value = self.loss(out, batch_y, do_metric=False)
        self.do_metric(value, out if records else None, batch_y)

    keeper = Keeper()
    assert trained(task_with(step), callbacks=keeper)["mean_out"] == 2.0
    read = [{name: float(value) for name, value in kept.items()} for kept in keeper.kept]
    assert read == [
        {"loss": 0.0},
        {"loss": 1.0, "mean_out": 1.0},
        {"loss": 4.0},
        {"loss": 9.0, "mean_out": 3.0},
    ]


def test_targets_of_the_loader_are_not_changed_by_a_metric() -> None:
    def unsqueezing(outputs: Tensor, targets: Tensor) -> Any:
        return float(targets.unsqueeze_(0).ndim)

    with pytest.warns(RuntimeWarning, match="'unsqueezing' changes its arguments in place"):
        trained(metrics=unsqueezing, metric_patch="mean")
    assert DATA[0][1].shape == (2, 1)


def test_the_weight_of_each_mini_batch_is_asked_for() -> None:
    asked = []

    def weight(inputs: Tensor, targets: Tensor) -> int:
        asked.append(float(inputs[0]))
        return 1

    trained(EpochTask(DATA, batch_size=weight))
    assert asked == [0.0, 1.0, 2.0, 3.0]


def test_a_wrapped_prepare_data_is_called() -> None:
    calls = []

    class Timed(Trainer):
        @functools.wraps(Trainer.prepare_data)
        def prepare_data(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return super().prepare_data(*args, **kwargs)

    assert trained(kind=Timed) == {"loss": 3.5, "mean_out": 1.5}
    assert len(calls) == len(DATA)


def test_paced_hooks_are_called_by_the_clock_and_all_others_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    calls: list[str] = []

    class Paced(ConsoleCallback):
        def on_after_train_batch(self, batch_idx: int, **others: Any) -> None:
            calls.append(f"override {batch_idx}")

    class Wrapped(Callback):
        order = 2

        @functools.wraps(ConsoleCallback.on_after_train_batch)
        def on_after_train_batch(self, batch_idx: int, **others: Any) -> None:
            calls.append(f"wrapped {batch_idx}")

    class Shown(Callback):
        order = 1

        @paced
        def on_after_train_batch(self, batch_idx: int, **others: Any) -> None:
            calls.append(f"paced {batch_idx}")

    class Clock(Callback):
        def on_before_train_batch(self, **others: Any) -> None:
            now[0] += 0.06

    monkeypatch.setattr(loop, "monotonic", lambda: now[0])
    trained(callbacks=[Paced(), Shown(), Wrapped(), Clock()])
    each = [["wrapped {i}", "paced {i}", "override {i}"], ["wrapped {i}", "override {i}"]]
    expected = [text.format(i=i) for i in range(4) for text in each[i % 2]]
    assert calls == expected


def test_a_compile_within_a_fit_stays() -> None:
    class Compiling(Callback):
        def on_before_train_forward(self, trainer: Trainer) -> None:
            pass

        def on_before_fit(self, trainer: Trainer, **others: Any) -> None:
            trainer.model._compiled_call_impl = trainer.model._call_impl  # as compile() does

        def on_after_fit(self, trainer: Trainer) -> None:
            self.model = trainer.model

    callback = Compiling()
    trained(callbacks=callback)
    assert callback.model._compiled_call_impl is not None
