"""Optimizers that are not as torch's: states of another form, wrappers, modes, no rate.

Each trains as in a loop by hand, and a run that is resumed is the unbroken one, to the bit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, LogCallback, Optimizer, Trainer
from deepepochs.checkpoint import load
from deepepochs.errors import CheckpointMismatch, ConfigError

torch.manual_seed(5)
X, Y = torch.randn(48, 4), torch.randint(2, (48,))
DL = DataLoader(TensorDataset(X, Y), batch_size=12)
Make = Callable[[list[Tensor]], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


class Wrapped(torch.optim.Optimizer):
    """All is the inner one's, and the state has another form."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.state, self.defaults = inner, inner.state, inner.defaults
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "n": 3}

    def load_state_dict(self, state_dict: Any) -> None:
        self.inner.load_state_dict(state_dict["inner"])


class PairState(torch.optim.SGD):
    """A state that is no dict."""

    def state_dict(self) -> Any:
        return (super().state_dict(), "mine")

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict[0])


class SharpnessAware(torch.optim.Optimizer):
    """As SAM: torch's own state_dict, which does not have the state of the base optimizer."""

    def __init__(self, params: Any, base: type[torch.optim.Optimizer], **options: Any) -> None:
        super().__init__(params, options)
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in (w for group in self.param_groups for w in group["params"]):
            entry = self.state[weight]
            entry["mean"] = entry.get("mean", torch.zeros_like(weight)).lerp(weight.grad, 0.5)
            weight.grad.add_(entry["mean"])
        self.base_optimizer.step()


class Lookahead(torch.optim.Optimizer):
    """Slow weights beside the fast ones, and a count; the state has another form."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
        self.slow = [weight.detach().clone() for weight in self.weights()]
        self.count = 0

    def weights(self) -> list[Any]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step()
        self.count += 1
        if self.count % 3 == 0:
            for fast, slow in zip(self.weights(), self.slow, strict=True):
                fast.copy_(slow.lerp_(fast, 0.5))

    def state_dict(self) -> dict[str, Any]:
        return {"fast": self.optimizer.state_dict(), "slow": self.slow, "count": self.count}

    def load_state_dict(self, state_dict: Any) -> None:
        self.optimizer.load_state_dict(state_dict["fast"])
        self.slow, self.count = state_dict["slow"], state_dict["count"]


class Masters(torch.optim.Optimizer):
    """Keeps copies in double precision; the rates of the groups are not in its state."""

    def __init__(self, params: list[Tensor]) -> None:
        super().__init__(params, {"lr": 0.1})
        self.copies = [weight.detach().double().requires_grad_() for weight in params]
        self.inner = torch.optim.SGD(self.copies, 0.1, momentum=0.9)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        weights = self.param_groups[0]["params"]
        for weight, own in zip(weights, self.copies, strict=True):
            own.grad = weight.grad.double()
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self.inner.step()
        for weight, own in zip(weights, self.copies, strict=True):
            weight.copy_(own)

    def state_dict(self) -> dict[str, Any]:
        return {"copies": self.copies, "inner": self.inner.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Any) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        for own, saved in zip(self.copies, state_dict["copies"], strict=True):
            own.copy_(saved)


class NoSubclass:
    """A wrapper that is no optimizer of torch's by its class, with modes; as some of apex are."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base = base
        self.is_training = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    @property
    def state(self) -> Any:
        return self.base.state

    def train(self) -> None:
        self.is_training = True

    def eval(self) -> None:
        self.is_training = False

    def step(self, closure: Any = None) -> None:
        assert self.is_training
        self.base.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad()

    def state_dict(self) -> Any:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.base.load_state_dict(state_dict)


class NoRate(torch.optim.SGD):
    """The rate is None, and each step finds its own."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1, momentum=0.9)
        self.param_groups[0]["lr"] = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.param_groups[0]["lr"] = 0.1
        super().step()
        self.param_groups[0]["lr"] = None


MAKERS: dict[str, Make] = {
    "wrapped": lambda weights: Wrapped(torch.optim.SGD(weights, 0.1, momentum=0.9)),
    "a pair as state": lambda weights: PairState(weights, 0.1, momentum=0.9),
    "sharpness-aware": lambda weights: SharpnessAware(
        weights, torch.optim.SGD, lr=0.1, momentum=0.9
    ),
    "lookahead": lambda weights: Lookahead(torch.optim.Adam(weights, 0.1)),
    "masters": Masters,
    "no subclass": lambda weights: NoSubclass(torch.optim.SGD(weights, 0.1, momentum=0.9)),  # type: ignore[arg-type,return-value]
    "without a rate": NoRate,
}
if hasattr(torch.optim, "Muon"):
    MAKERS["Muon"] = lambda weights: torch.optim.Muon(weights[:1], 0.1)
# torch's schedulers take subclasses of its optimizer, and need a rate.
SCHEDULED = {n: make for n, make in MAKERS.items() if n not in ("without a rate", "no subclass")}


def made(make: Make, model: nn.Module, *, scheduled: bool) -> tuple[torch.optim.Optimizer, Any]:
    opt = make(list(model.parameters()))
    return opt, StepLR(opt, 1, 0.5) if scheduled else None


def by_hand(make: Make, epochs: int, *, scheduled: bool) -> Tensor:
    model = net()
    opt, schedule = made(make, model, scheduled=scheduled)
    if isinstance(opt, NoSubclass):
        opt.train()
    for _ in range(epochs):
        for x, y in DL:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
        if schedule is not None:
            schedule.step()
    return model.weight.detach()


def trainer(make: Make, epochs: int, *, scheduled: bool = False, **options: Any) -> Trainer:
    model = net()
    optimizer = Optimizer(*made(make, model, scheduled=scheduled))
    options.setdefault("callbacks", [CheckCallback("loss", on_stage="train"), LogCallback()])
    return Trainer(model, F.cross_entropy, optimizer, epochs=epochs, show_info=False, **options)


def weight_of(one: Trainer) -> Tensor:
    return one.model.weight.detach().clone()  # type: ignore[operator, no-any-return]


SETUPS = [
    *((name, False) for name in MAKERS),
    *((name, True) for name in SCHEDULED),
]


@pytest.mark.filterwarnings("ignore:Weights of the model get gradients, and no optimizer")
@pytest.mark.parametrize(("name", "scheduled"), SETUPS)
def test_it_trains_as_by_hand_and_resumes_to_the_bit(name: str, scheduled: bool) -> None:
    make, wanted = MAKERS[name], by_hand(MAKERS[name], 4, scheduled=scheduled)
    whole = trainer(make, 4, scheduled=scheduled)
    whole.fit(DL)
    assert torch.equal(weight_of(whole), wanted)
    whole.test(DL)

    trainer(make, 2, scheduled=scheduled, running_id="cut").fit(DL)
    again = trainer(make, 4, scheduled=scheduled, running_id="cut", resume=True)
    again.fit(DL)
    assert torch.equal(weight_of(again), wanted)
    assert not torch.equal(by_hand(make, 2, scheduled=scheduled), wanted)


@pytest.mark.filterwarnings("ignore:Weights of the model get gradients, and no optimizer")
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_search_for_a_rate_leaves_no_trace(name: str) -> None:
    one = trainer(MAKERS[name], 2, scheduled=True, callbacks=None)
    one.find_lr(DL, max_batch=6)
    one.fit(DL)
    assert torch.equal(weight_of(one), by_hand(MAKERS[name], 2, scheduled=True))


def test_the_state_of_another_inner_optimizer_is_refused_and_nothing_changed() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    one = Optimizer(SharpnessAware(weights, torch.optim.SGD, lr=0.1))
    other = Optimizer(SharpnessAware(weights, torch.optim.Adam, lr=0.1)).state_dict()
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(CheckpointMismatch, match="optimizer Adam does not fit SGD"):
        one.load_state_dict(other)
    assert one.state_dict() == before


def test_a_loaded_state_of_an_own_form_is_not_changed_by_later_steps() -> None:
    one = trainer(MAKERS["lookahead"], 2, callbacks=None)
    one.fit(DL, epochs=1)
    state = copy.deepcopy(one.opt.state_dict())
    kept = copy.deepcopy(state[0]["opt_state"]["slow"])
    one.opt.load_state_dict(state)
    one.fit(DL, epochs=1)
    assert torch.equal(state[0]["opt_state"]["slow"][0], kept[0])


def test_an_optimizer_without_a_rate_is_logged_without_one() -> None:
    one = trainer(NoRate, 1, running_id="none")
    one.fit(DL)
    assert one.opt.get_current_lr() == [None]
    record = json.loads(Path("logs/none/run.json").read_text())
    assert record["rates"] == [[None]]
    assert record["settings"]["optimizer"] == "NoRate(lr=–, momentum=0.9)"


def test_a_search_for_a_rate_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer 0 \(NoRate\) has no learning rate"):
        trainer(NoRate, 1, callbacks=None).find_lr(DL)


class ScheduleFree(torch.optim.Optimizer):
    """Trains at one point and is used at another: the mean of all, exchanged by train and eval."""

    def __init__(self, params: Any, lr: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "is_training": False, "count": 0})

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight in (w for group in self.param_groups for w in group["params"]):
            other = self.state[weight].setdefault("other", weight.clone())
            self.state[weight]["other"] = weight.clone()
            weight.copy_(other)

    def _set(self, is_training: bool) -> None:
        group = self.param_groups[0]
        if group["is_training"] != is_training:
            self._exchange()
            group["is_training"] = is_training

    def train(self) -> None:
        self._set(True)

    def eval(self) -> None:
        self._set(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        assert group["is_training"], "a step in evaluation mode"
        group["count"] += 1
        for weight in group["params"]:
            weight.sub_(group["lr"] * weight.grad)
            other = self.state[weight].setdefault("other", weight.clone())
            other.lerp_(weight, 1 / group["count"])


class Rounding(ScheduleFree):
    """One that does not come back to the very bits, as those that interpolate."""

    @torch.no_grad()
    def _exchange(self) -> None:
        super()._exchange()
        for weight in self.param_groups[0]["params"]:
            weight.mul_(3.0).div_(3.0).mul_(1 + 1e-7)


class UnsavedMode(ScheduleFree):
    """The mode is an attribute, which no state has."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.is_training = self.param_groups[0]["is_training"] = True

    def _set(self, is_training: bool) -> None:
        if self.is_training != is_training:
            self._exchange()
            self.is_training = is_training


def free_by_hand(
    epochs: int, kind: type[ScheduleFree] = ScheduleFree, *, validates: bool = True
) -> tuple[Tensor, list[float]]:
    """Train by hand; give the weights in evaluation mode, and the validation losses."""
    model = net()
    opt = kind(model.parameters())
    losses = []
    for _ in range(epochs):
        opt.train()
        for x, y in DL:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
        if validates:
            opt.eval()
            with torch.no_grad():
                losses.append(sum(float(F.cross_entropy(model(x), y)) for x, y in DL) / len(DL))
    opt.eval()
    return model.weight.detach().clone(), losses


def free(epochs: int, kind: type[ScheduleFree] = ScheduleFree, **options: Any) -> Trainer:
    model = net()
    opt = kind(model.parameters())
    options.setdefault("callbacks", CheckCallback("loss"))
    return Trainer(model, F.cross_entropy, opt, epochs=epochs, show_info=False, **options)


@pytest.mark.parametrize("kind", [ScheduleFree, Rounding, UnsavedMode])
def test_an_optimizer_with_modes_is_switched_with_the_stages(kind: type[ScheduleFree]) -> None:
    weight, losses = free_by_hand(3, kind)
    one = free(3, kind)
    history = one.fit(DL, DL)
    assert history["val"]["loss"] == pytest.approx(losses, abs=1e-6)
    assert torch.equal(weight_of(one), weight)


@pytest.mark.parametrize("kind", [ScheduleFree, Rounding, UnsavedMode])
@pytest.mark.parametrize("validates", [True, False])
def test_weights_after_a_fit_and_in_checkpoints_are_those_to_use(
    kind: type[ScheduleFree], validates: bool
) -> None:
    check = CheckCallback("loss", on_stage="val" if validates else "train", save_best=False)
    one = free(2, kind, callbacks=check, running_id="a")
    one.fit(DL, DL if validates else None)
    saved = load("logs/a/checkpoint.ckpt")["model"]["weight"]
    assert torch.equal(weight_of(one), saved)
    if kind is ScheduleFree:
        assert torch.equal(saved, free_by_hand(2, kind, validates=validates)[0])
    with torch.no_grad():
        loss = F.cross_entropy(one.model(X), Y)
    assert one.test(DL)["loss"] == pytest.approx(float(loss), abs=1e-6)
    assert torch.equal(one.predict(DL), one.model(X).detach())


@pytest.mark.parametrize("kind", [ScheduleFree, Rounding, UnsavedMode])
@pytest.mark.parametrize("stop_at", [2, 4, 5, 7])
def test_a_run_with_modes_resumes_to_the_bit(kind: type[ScheduleFree], stop_at: int) -> None:
    class Stop(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if trainer.progress.num_train_batches == stop_at:
                trainer.stop("here")

    whole = free(3, kind)
    whole.fit(DL, DL)
    free(3, kind, callbacks=[CheckCallback("loss"), Stop()], running_id="cut").fit(DL, DL)
    again = free(3, kind, running_id="cut", resume=True)
    again.fit(DL, DL)
    assert torch.equal(weight_of(again), weight_of(whole))
    assert again.history == whole.history


@pytest.mark.parametrize("kind", [ScheduleFree, Rounding, UnsavedMode])
@pytest.mark.parametrize("look", ["test", "predict", "find_lr"])
def test_looking_inside_of_training_leaves_the_very_weights(
    kind: type[ScheduleFree], look: str
) -> None:
    class Look(Callback):
        seen = 0

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if trainer.session.kind.value == "fit" and batch_idx == 1:
                options = {"max_batch": 3} if look == "find_lr" else {}
                getattr(trainer, look)(DL, **options)
                self.seen += 1

    looks = Look()
    one = free(2, kind, callbacks=looks)
    one.fit(DL, DL)
    other = free(2, kind, callbacks=None)
    other.fit(DL, DL)
    assert looks.seen == 2
    assert torch.equal(weight_of(one), weight_of(other))


def test_a_search_before_a_fit_leaves_an_optimizer_with_modes_as_it_was() -> None:
    one = free(2)
    one.find_lr(DL, max_batch=5)
    one.fit(DL, DL)
    assert torch.equal(weight_of(one), free_by_hand(2)[0])


def test_without_its_modes_the_same_optimizer_validates_at_other_weights() -> None:
    class Modeless(ScheduleFree):
        train = None  # type: ignore[assignment]

    model = net()
    opt = Modeless(model.parameters())
    opt.param_groups[0]["is_training"] = True
    history = Trainer(model, F.cross_entropy, opt, epochs=3, show_info=False).fit(DL, DL)
    assert history["val"]["loss"] != pytest.approx(free_by_hand(3)[1], abs=1e-3)
