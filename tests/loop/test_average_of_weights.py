"""`Trainer(ema=...)`: the numbers of a loop by hand, in validation, test, best and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deepepochs import (
    EMA,
    Callback,
    CheckCallback,
    CheckpointMismatch,
    ConfigError,
    EpochTask,
    Trainer,
)

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def batches() -> Batches:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=g), torch.arange(8) % 3) for _ in range(5)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def make(model: nn.Module | None = None, *callbacks: Callback, **options: Any) -> Trainer:
    model = make_model() if model is None else model
    options = {"epochs": 3, "ema": 0.9, "console": "off", **options}
    opt = options.pop("opt", None) or torch.optim.Adam(model.parameters(), lr=0.05)
    return Trainer(model, F.cross_entropy, opt, callbacks=list(callbacks), **options)


def by_hand(
    batches: Batches, epochs: int = 3, every: int = 1, size: int = 1, **options: Any
) -> tuple[nn.Module, nn.Module, list[float]]:
    """Train in a loop with torch's own average; give the model, its average, losses of it."""
    model = make_model()
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **options)
    losses, num_steps = [], 0
    for _ in range(epochs):
        model.train()
        for first in range(0, len(batches), size):
            window = batches[first : first + size]
            for x, y in window:
                (F.cross_entropy(model(x), y) / len(window)).backward()
            opt.step()
            opt.zero_grad()
            num_steps += 1
            if num_steps % every == 0:
                averaged.update_parameters(model)
        averaged.eval()
        with torch.no_grad():
            losses.append(sum(F.cross_entropy(averaged(x), y).item() for x, y in batches) / 5)
    return model, averaged.module, losses


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """The same weights and floating buffers, to the bit."""
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert not a.is_floating_point() or torch.equal(a, b), name


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_and_what_it_validates_are_those_of_torch_in_a_loop(
    batches: Batches, every: int
) -> None:
    raw, averaged, losses = by_hand(batches, every=every, use_buffers=True)
    trainer = make(ema=EMA(0.9, every=every))
    history = trainer.fit(batches, batches)
    assert history["val"]["loss"] == pytest.approx(losses, abs=1e-7)
    assert_same(trainer.model, averaged)
    assert trainer.ema is not None
    with trainer.ema.raw():
        assert_same(trainer.model, raw)
    assert_same(trainer.model, averaged)


def test_without_buffers_those_of_the_model_are_used(batches: Batches) -> None:
    _, averaged, losses = by_hand(batches)
    trainer = make(ema=EMA(0.9, buffers=False))
    history = trainer.fit(batches, batches)
    assert history["val"]["loss"] == pytest.approx(losses, abs=1e-7)
    assert_same(trainer.model, averaged)


def test_with_accumulation_only_the_steps_are_averaged(batches: Batches) -> None:
    _, averaged, _ = by_hand(batches, size=2)
    trainer = make(grad_accumulate=2)
    trainer.fit(batches, batches)
    for one, other in zip(trainer.model.parameters(), averaged.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert trainer.progress.num_steps == 9


def test_warm_up_follows_its_formula(batches: Batches) -> None:
    weights: list[Tensor] = []

    class Look(Callback):
        def on_after_optimize(self, trainer: Any, optimize_index: int | None) -> None:
            weights.append(trainer.model[3].bias.clone())

    trainer = make(None, Look(), ema=EMA(0.5, warmup=10), epochs=4)
    trainer.fit(batches)
    average = weights[0]
    for t, weight in enumerate(weights):
        d = min(0.5, (1 + t) / (10 + t))
        average = d * average + (1 - d) * weight
    torch.testing.assert_close(trainer.model[3].bias, average)  # type: ignore[index]


def test_the_training_is_the_same_as_without_an_average(batches: Batches) -> None:
    plain, averaging = make(ema=None, epochs=2), make(epochs=2)
    one = plain.fit(batches, batches, val_freq=2)["train"]["loss"]
    assert averaging.fit(batches, batches, val_freq=2)["train"]["loss"] == one
    assert (
        averaging.fit(batches, epochs=2)["train"]["loss"]
        == (plain.fit(batches, epochs=2)["train"]["loss"])
    )
    assert averaging.ema is not None
    with averaging.ema.raw():
        assert_same(plain.model, averaging.model)


def test_the_best_weights_are_the_averaged_ones_everywhere(batches: Batches) -> None:
    trainer = make(None, CheckCallback("loss"), epochs=4, running_id="run")
    best = min(trainer.fit(batches, batches)["val"]["loss"])
    fresh = make_model()
    fresh.load_state_dict(torch.load("logs/run/best.ckpt", weights_only=True)["state"]["model"])
    assert Trainer(fresh, F.cross_entropy, console="off").test(batches)["loss"] == best
    outputs = trainer.predict(batches, best=True)
    assert F.cross_entropy(outputs, torch.cat([y for _, y in batches])).item() == (
        pytest.approx(best)
    )
    assert trainer.test(batches)["loss"] == best
    assert trainer.load_best().test(batches)["loss"] == best
    trainer.save_weights("weights.pt")
    fresh.load_state_dict(torch.load("weights.pt", weights_only=True))
    assert Trainer(fresh, F.cross_entropy, console="off").test(batches)["loss"] == best


def test_a_best_state_that_is_kept_in_the_middle_of_an_epoch_has_the_averages(
    batches: Batches,
) -> None:
    seen: dict[str, Any] = {}

    class Keep(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                with trainer.ema.applied():
                    seen["average"] = copy.deepcopy(trainer.model.state_dict())
                trainer.request_save(
                    lambda t: seen.update(saved=copy.deepcopy(t.state_dict()["model"]))
                )
                seen["raw"] = copy.deepcopy(trainer.model.state_dict())

    make(None, Keep(), epochs=1).fit(batches)
    assert torch.equal(seen["saved"]["0.weight"], seen["average"]["0.weight"])
    assert not torch.equal(seen["saved"]["0.weight"], seen["raw"]["0.weight"])


def test_a_test_in_a_hook_of_training_uses_the_average_and_leaves_no_trace(
    batches: Batches,
) -> None:
    class Tests(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            before = copy.deepcopy(trainer.model.state_dict())
            loss = trainer.test(batches)["loss"]
            assert all(torch.equal(before[n], v) for n, v in trainer.model.state_dict().items())
            with trainer.ema.applied():
                model = copy.deepcopy(trainer.model).eval()
            assert loss == Trainer(model, F.cross_entropy, console="off").test(batches)["loss"]

    tested, plain = make(None, Tests(), epochs=2), make(epochs=2)
    assert dict(tested.fit(batches)) == dict(plain.fit(batches))
    assert_same(tested.model, plain.model)


@pytest.mark.parametrize("how", ["load_weights", "by hand", "load_best"])
def test_weights_that_somebody_sets_are_trained_from_there(batches: Batches, how: str) -> None:
    trainer = make(None, CheckCallback("loss", on_stage="train"), epochs=2)
    trainer.fit(batches)
    other = make_model()
    if how == "load_weights":
        trainer.load_weights(other.state_dict())
    elif how == "by hand":
        trainer.model.load_state_dict(other.state_dict())
    else:
        other.load_state_dict(trainer.load_best().model.state_dict())
    plain = make(other, ema=None, opt=torch.optim.SGD(other.parameters(), lr=0.1))
    trainer.opt[0].opt.param_groups[0]["lr"] = 0.0
    trainer.fit(batches[:1], epochs=1)
    plain.model.train()
    other(batches[0][0])  # the statistics of the batch norm
    assert trainer.predict(batches).equal(plain.predict(batches))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LazyLinear(6)
        self.tied = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.tied.weight = nn.Parameter(torch.eye(6))
        self.again = nn.Linear(6, 6)
        self.again.weight = self.tied.weight
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.tied(self.body(x))))  # type: ignore[no-any-return]


def test_lazy_and_tied_weights_are_averaged_and_infinite_buffers_stay(batches: Batches) -> None:
    torch.manual_seed(0)
    trainer = make(Lazy())
    trainer.fit(batches, batches)
    model: Any = trainer.model
    average = model.body.weight.clone()
    assert model.mask.tolist() == [0.0, -torch.inf]
    assert model.again.weight is model.tied.weight
    assert trainer.ema is not None
    with trainer.ema.raw():
        assert not torch.equal(model.body.weight, average)
        assert model.again.weight is model.tied.weight


def test_weights_that_join_later_begin_with_their_present_values(batches: Batches) -> None:
    class Unfreeze(Callback):
        def on_before_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
            if epoch_idx == 2:
                trainer.model[0].requires_grad_(True)
                trainer.opt[0].opt.add_param_group({"params": [*trainer.model[0].parameters()]})

    model = make_model()
    model[0].requires_grad_(False)
    start = model[0].weight.clone()
    opt = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=0.05)
    trainer = make(model, Unfreeze(), opt=opt)
    trainer.fit(batches, batches)
    assert trainer.ema is not None
    moved = (model[0].weight - start).abs().max().item()
    with trainer.ema.raw():
        moved_raw = (model[0].weight - start).abs().max().item()
    assert 0 < moved < moved_raw


class TwoSteps(EpochTask):
    """Two optimizers, of which the second one steps every other time."""

    def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
        self.backward(self.loss_fn(self.model(*batch_x), batch_y))
        self.optimize(0)
        if self.run is not None and self.run.batch_idx % 2:
            self.optimize(1)


def test_each_optimizer_has_its_weights_averaged_after_its_own_steps(batches: Batches) -> None:
    values: dict[int, list[Tensor]] = {0: [], 1: []}

    class Look(Callback):
        def on_after_optimize(self, trainer: Any, optimize_index: Any) -> None:
            layer = trainer.model[0] if optimize_index == 0 else trainer.model[3]
            values[optimize_index].append(layer.bias.clone())

    model = make_model()
    opts = [
        torch.optim.SGD(model[:3].parameters(), 0.5),
        torch.optim.SGD(model[3].parameters(), 0.5),
    ]
    trainer = make(model, Look(), opt=opts, epochs=1)
    trainer.fit(train_tasks=TwoSteps(batches))
    assert [len(of) for of in values.values()] == [5, 2]
    for layer, of in ((model[0], values[0]), (model[3], values[1])):
        average = of[0]
        for value in of[1:]:
            average = average.lerp(value, 1 - 0.9)
        torch.testing.assert_close(layer.bias, average)


def test_find_lr_leaves_weights_and_average_as_they_were(batches: Batches) -> None:
    trainer, other = make(epochs=2), make(epochs=2)
    for one in (trainer, other):
        one.fit(batches)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.find_lr(batches, max_batch=8)
    assert all(torch.equal(before[name], v) for name, v in trainer.model.state_dict().items())
    assert dict(trainer.fit(batches, epochs=1)) == dict(other.fit(batches, epochs=1))
    assert_same(trainer.model, other.model)


def test_a_copy_of_a_trainer_has_an_average_of_its_own(batches: Batches) -> None:
    trainer = make(epochs=1)
    trainer.fit(batches)
    other = copy.deepcopy(trainer)
    before = copy.deepcopy(trainer.model.state_dict())
    other.fit(batches, epochs=1)
    assert all(torch.equal(before[name], v) for name, v in trainer.model.state_dict().items())
    trainer.fit(batches, epochs=1)
    assert_same(trainer.model, other.model)


def test_a_compiled_model_is_averaged(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    _, averaged, losses = by_hand(batches, use_buffers=True)
    compile_call = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_call(f, backend="eager"))
    trainer = make(compile_model=True)
    assert trainer.fit(batches, batches)["val"]["loss"] == pytest.approx(losses, abs=1e-7)
    assert_same(trainer.model, averaged)


@pytest.mark.parametrize("where", ["train 3", "val 2"])
def test_a_run_that_is_stopped_and_started_again_is_the_unbroken_one(
    batches: Batches, where: str
) -> None:
    class Stops(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            self.stop(trainer, f"train {batch_idx}")

        def on_after_val_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            self.stop(trainer, f"val {batch_idx}")

        def stop(self, trainer: Any, place: str) -> None:
            if place == where and trainer.init_epoch == 1:
                trainer.stop("enough")

    options: dict[str, Any] = {"running_id": "run", "resume": "auto"}
    make(None, CheckCallback("loss"), Stops(), **options).fit(batches, batches)
    trainer, whole = make(None, CheckCallback("loss"), **options), make()
    history = trainer.fit(batches, batches)
    assert dict(history) == dict(whole.fit(batches, batches))
    assert_same(trainer.model, whole.model)
    assert trainer.test(batches)["loss"] == min(history["val"]["loss"])


def test_a_checkpoint_with_an_average_needs_a_trainer_with_one(batches: Batches) -> None:
    trainer = make(None, CheckCallback("loss"), epochs=1)
    trainer.fit(batches, batches)
    with pytest.raises(
        CheckpointMismatch, match=r"ema=EMA\(.*\nload_weights takes the weights alone"
    ):
        make(ema=None).load_checkpoint(trainer.run_dir)
    plain = make(ema=None).load_weights(trainer.run_dir / "checkpoint.ckpt")
    assert_same(plain.model, trainer.model)


def test_an_average_may_begin_in_a_run_that_had_none(batches: Batches) -> None:
    before = make(None, CheckCallback("loss"), ema=None, epochs=1)
    before.fit(batches, batches)
    trainer = make(None, CheckCallback("loss"), epochs=2)
    trainer.load_checkpoint(before.run_dir)
    trainer.fit(batches, batches)
    assert trainer.ema is not None
    average: Any = copy.deepcopy(trainer.model)
    with trainer.ema.raw():
        assert not torch.equal(average[0].weight, trainer.model[0].weight)  # type: ignore[index]


def test_a_weight_that_is_nan_does_not_begin_the_average_anew(batches: Batches) -> None:
    class Sparse(nn.Sequential):  # as rows of an embedding that are not there yet
        def __init__(self) -> None:
            super().__init__(*make_model())
            self.unused = nn.Parameter(torch.full((3,), torch.nan))

    losses = []
    for options in ({}, {"val_every": 2}):
        trainer = make(model := Sparse(), **options)
        losses.append(trainer.fit(batches, batches)["train"]["loss"])
    assert losses[0] == losses[1]
    for one, other in zip(model, by_hand(batches, use_buffers=True)[1], strict=True):
        assert_same(one, other)


WRONG: list[tuple[Any, str]] = [
    (1.5, "ema=1.5: give the decay, between 0 and 1, such as ema=0.999"),
    (0, "ema=0: give the decay"),
    (True, "ema=True is a bool: give the decay, ema=0.999"),
    ("0.9", "ema='0.9' is a str: give the decay"),
    (EMA, "ema=EMA is a class: give the decay, ema=0.999, or EMA(0.999, warmup=10)"),
]


@pytest.mark.parametrize(("ema", "told"), WRONG, ids=str)
def test_another_ema_is_refused_when_the_trainer_is_made(ema: Any, told: str) -> None:
    with pytest.raises(ConfigError) as info:
        make(ema=ema)
    assert told in str(info.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"decay": 99}, "decay=99: give a number between 0 and 1"),
        ({"decay": "0.9"}, "decay='0.9' is a str: give a number"),
        ({"every": 0}, "every=0: give an int of at least 1"),
        ({"warmup": -1}, "warmup=-1: give an int of at least 0"),
        ({"buffers": "no"}, "give True or False"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as info:
        EMA(**{"decay": 0.9, **options})
    assert told in str(info.value)
