"""`AnalyzeCallback`: statistics of outputs and gradients over the whole mini-batch."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from event_reader import assert_same_bits, loaders, read_events, run_bits, scalars, small_trainer
from torch import nn
from torch.nn import functional as F

from deepepochs import AnalyzeCallback, Callback, ConfigError, EpochTask, LogCallback
from deepepochs.callbacks.analyze import Flow


def tags(folder: Path) -> set[str]:
    return set(scalars(folder))


def test_tags_name_direction_statistic_place_and_layer(tmp_path: Path) -> None:
    small_trainer(callbacks=AnalyzeCallback("both", tmp_path), running_id="a").fit(loaders()[0])
    found = tags(tmp_path / "a")
    places = {"FORWARD": "12345", "BACKWARD": "125"}
    for direction in ("FORWARD", "BACKWARD"):
        assert {f"{direction}_{s}/1-Linear" for s in ("mean", "std")} <= found
        layers = {tag.split("/")[1] for tag in found if tag.startswith(direction)}
        assert {layer.split("-")[0] for layer in layers} == set(places[direction])


def test_tensorboard_groups_the_layers_by_direction_and_statistic(tmp_path: Path) -> None:
    """Its sections are what stands before the first slash."""
    small_trainer(callbacks=AnalyzeCallback("both", tmp_path), running_id="a").fit(loaders()[0])
    events = read_events(tmp_path / "a").Tags()
    sections = {tag.split("/")[0] for tag in events["scalars"] + events["histograms"]}
    assert sections == {
        f"{d}_{s}" for d in ("FORWARD", "BACKWARD") for s in ("mean", "std", "hist")
    }


@pytest.mark.parametrize(("mode", "prefix"), [("forward", "FORWARD"), ("backward", "BACKWARD")])
def test_only_the_direction_asked_for_is_written(tmp_path: Path, mode: str, prefix: str) -> None:
    small_trainer(callbacks=AnalyzeCallback(mode, tmp_path), running_id="a").fit(loaders()[0])
    assert all(tag.startswith(prefix) for tag in tags(tmp_path / "a"))


def test_values_are_those_of_the_whole_mini_batch(tmp_path: Path) -> None:
    """Against a loop by hand; the ReLU in place must not change what its input was."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    train_dl, _ = loaders()
    batches = [tuple(batch) for batch in train_dl]
    expected: dict[str, list[float]] = {}
    copy = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    copy.load_state_dict(model.state_dict())
    opt = torch.optim.SGD(copy.parameters(), 0.1, momentum=0.9)
    for x, y in batches:
        first = copy[0](x)
        first.retain_grad()
        last = copy[2](F.relu(first))
        last.retain_grad()
        F.cross_entropy(last, y).backward()
        opt.step()
        opt.zero_grad()
        named = {"FORWARD_{}/1": first.detach(), "FORWARD_{}/3": last.detach(),
                 "BACKWARD_{}/1": first.grad, "BACKWARD_{}/3": last.grad}  # fmt: skip
        for tag, values in named.items():
            expected.setdefault(tag.format("mean"), []).append(float(values.mean()))
            expected.setdefault(tag.format("std"), []).append(float(values.std()))
    trainer = small_trainer(
        model, callbacks=AnalyzeCallback("both", tmp_path), running_id="a", epochs=1
    )
    trainer.fit(batches)
    found = scalars(tmp_path / "a")
    for tag, values in expected.items():
        curve = next(curve for name, curve in found.items() if name.startswith(f"{tag}-Linear"))
        assert [step for step, _ in curve] == [1, 2, 3, 4, 5, 6]
        assert [value for _, value in curve] == pytest.approx(values, rel=1e-4, abs=1e-7)


def test_sub_batches_count_together(tmp_path: Path) -> None:
    class Halves(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            outputs = []
            for half in (slice(0, 4), slice(4, 8)):
                outputs.append(self.model(batch_x[0][half]))
                loss = self.loss_fn(outputs[-1], batch_y[half])
                self.backward(loss, loss_adjust=0.5)
            self.optimize()
            self.do_metric(loss, torch.cat(outputs), batch_y)

    def run(name: str, task: type[EpochTask]) -> dict[str, list[tuple[int, float]]]:
        torch.manual_seed(2)
        model = nn.Linear(6, 3)
        trainer = small_trainer(
            model, callbacks=AnalyzeCallback("both", tmp_path), running_id=name, epochs=1
        )
        trainer.fit(train_tasks=task(loaders()[0]))
        return scalars(tmp_path / name)

    halves, whole = run("halves", Halves), run("whole", EpochTask)
    tag = "FORWARD_std/0-Linear"
    assert [v for _, v in halves[tag]] == pytest.approx([v for _, v in whole[tag]], rel=1e-4)


def test_histograms_come_every_nth_time_and_count_every_value(tmp_path: Path) -> None:
    analyze = AnalyzeCallback("both", tmp_path, hist_every_n=4)
    small_trainer(callbacks=analyze, running_id="a").fit(loaders()[0])
    events = read_events(tmp_path / "a")
    names = events.Tags()["histograms"]
    assert len(names) == 8
    tag = next(name for name in names if name.startswith("FORWARD_hist/1-"))
    histograms = events.Histograms(tag)
    assert [histogram.step for histogram in histograms] == [1, 5, 9]
    value = histograms[0].histogram_value
    assert value.num == sum(value.bucket) == 8 * 8
    means = dict(scalars(tmp_path / "a")[tag.replace("hist", "mean")])
    assert value.sum / value.num == pytest.approx(means[1], rel=1e-4)


def test_every_nth_mini_batch_is_enough_if_asked(tmp_path: Path) -> None:
    analyze = AnalyzeCallback("backward", tmp_path, every_n_batches=5, hist_every_n=0)
    small_trainer(callbacks=analyze, running_id="a").fit(*loaders())
    curves = scalars(tmp_path / "a")
    assert {tuple(step for step, _ in curve) for curve in curves.values()} == {(1, 6, 11)}
    assert not read_events(tmp_path / "a").Tags()["histograms"]


@pytest.mark.parametrize("mode", ["forward", "backward", "both"])
def test_it_changes_no_bit(tmp_path: Path, mode: str) -> None:
    callbacks = [AnalyzeCallback(mode, tmp_path, hist_every_n=1), LogCallback(tmp_path, True)]
    assert_same_bits(run_bits(callbacks=callbacks), run_bits())


def test_hooks_are_there_for_the_fit_alone(tmp_path: Path) -> None:
    counts = []

    class Count(Callback):
        def on_before_epoch(self, trainer: Any, **others: Any) -> None:
            counts.append(num_hooks(trainer.model))

    def num_hooks(model: nn.Module) -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    class Fail(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            raise ZeroDivisionError

    trainer = small_trainer(callbacks=[AnalyzeCallback("forward", tmp_path), Count()])
    assert num_hooks(trainer.model) == 0
    trainer.fit(*loaders())
    assert counts == [5, 5]
    assert num_hooks(trainer.model) == 0
    trainer = small_trainer(callbacks=[AnalyzeCallback("forward", tmp_path), Fail()])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(*loaders())
    assert num_hooks(trainer.model) == 0


def test_layers_that_give_several_tensors_or_none_are_looked_at_too(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 4, batch_first=True)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.frozen(self.lstm(x[:, None])[0][:, 0]))

    trainer = small_trainer(Net(), callbacks=AnalyzeCallback("both", tmp_path), running_id="a")
    trainer.fit(loaders()[0])
    assert any(tag.startswith("FORWARD_mean/1-LSTM") for tag in tags(tmp_path / "a"))
    assert any(tag.startswith("BACKWARD_mean/1-LSTM") for tag in tags(tmp_path / "a"))
    assert not any(tag.startswith("BACKWARD_mean/2-") for tag in tags(tmp_path / "a"))


def tensors_alive() -> list[torch.Tensor]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """The tensors alive after a mini-batch are as many late as early."""
    alive = []
    # What earlier tests have left behind is held, lest it goes between the two looks.
    _held = tensors_alive()

    class Count(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            if trainer.progress.num_train_batches in (8, 80):
                alive.append(len(tensors_alive()))

    analyze = AnalyzeCallback("both", tmp_path, hist_every_n=1)
    small_trainer(callbacks=[Count(), analyze], epochs=14, metrics=None).fit(loaders()[0])
    early, late = alive
    assert late == early


def test_parts_join_to_the_whole_without_cancelling() -> None:
    values = 1e4 + torch.randn(1000)
    flow = Flow()
    for part in values.split([1, 499, 500]):
        flow.add(part, with_values=False)
    mean, std = flow.moments().tolist()
    assert mean == pytest.approx(float(values.double().mean()), rel=1e-6)
    assert std == pytest.approx(float(values.double().std()), rel=1e-3)


def test_values_that_are_not_finite_spare_the_histogram(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def forward(self, x: Any) -> Any:
            out = super().forward(x)
            return torch.cat([out, torch.full_like(out[:, :1], float("inf")).detach()], 1)

    model = nn.Sequential(Odd(6, 2), nn.Hardtanh(), nn.Linear(3, 3))
    callbacks = AnalyzeCallback("forward", tmp_path)
    small_trainer(model, callbacks=callbacks, running_id="a", epochs=1).fit(loaders()[0])
    events = read_events(tmp_path / "a")
    tag = next(tag for tag in events.Tags()["histograms"] if "_hist/1-" in tag)
    assert events.Histograms(tag)[0].histogram_value.num == 8 * 2


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode='sideways'"):
        AnalyzeCallback("sideways")
