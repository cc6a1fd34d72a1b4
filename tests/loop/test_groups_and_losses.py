"""Weights that come later, and weights and modes of the loss function: as in a loop by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, EpochTask, Trainer
from deepepochs.checkpoint import load
from deepepochs.optim.optimizers import Optimizers

torch.manual_seed(2)
X, Y = torch.randn(24, 4), torch.randint(3, (24,))
DL = DataLoader(TensorDataset(X, Y), batch_size=4)
START = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def head_only(model: nn.Sequential) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[2].parameters(), 0.1, momentum=0.9)


def join(opt: torch.optim.Optimizer, model: nn.Sequential) -> None:
    opt.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})


# --- weights that join an optimizer later

JOIN_AT = 8  # the mini-batch, over all epochs, before which they join


def by_hand(accumulate: int = 1) -> list[Tensor]:
    model = copy.deepcopy(START)
    opt = head_only(model)
    for index, (x, y) in enumerate(batch for _ in range(3) for batch in DL):
        if index == JOIN_AT:
            join(opt, model)
        if index % accumulate == 0:
            opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if index % accumulate == accumulate - 1:
            for weight in model.parameters():
                if accumulate > 1 and weight.grad is not None:
                    weight.grad.mul_(1 / accumulate)
            opt.step()
    return weights(model)


class Joins(Callback):
    """Adds the group at one moment, given by the hook."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def _join(self, hook: str, trainer: Any, at: int) -> None:
        if hook == self.hook and at == JOIN_AT:
            join(trainer.opt[0].opt, trainer.model)

    def on_before_train_batch(self, trainer: Any, batch_idx: int, **_: Any) -> None:
        self._join("before the batch", trainer, trainer.progress.num_train_batches - 1)

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self._join("after the batch", trainer, trainer.progress.num_train_batches)

    def on_before_backward(self, trainer: Any, loss: Any) -> None:
        self._join("before the backward pass", trainer, trainer.progress.num_train_batches - 1)


class JoinsInStep(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        if self.trainer.progress.num_train_batches - 1 == JOIN_AT:
            join(self.opt[0].opt, self.model)  # type: ignore[arg-type]
        self.loss(self.model(*batch_x), batch_y)


@pytest.mark.filterwarnings("ignore:Weights of the model get gradients")
@pytest.mark.parametrize(
    "where", ["before the batch", "after the batch", "before the backward pass", "in the step"]
)
def test_gradients_from_before_a_weight_joined_are_part_of_no_step(where: str) -> None:
    model = copy.deepcopy(START)
    trainer = Trainer(
        model, F.cross_entropy, head_only(model), 3, callbacks=Joins(where), show_info=False
    )
    task = JoinsInStep(DL) if where == "in the step" else EpochTask(DL)
    trainer.fit(train_tasks=task)
    assert len(trainer.opt[0].param_groups) == 2
    assert same(weights(model), by_hand())


class JoinsAtEpoch(Callback):
    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def _join(self, hook: str, trainer: Any) -> None:
        if hook == self.hook and trainer.init_epoch == 1:
            join(trainer.opt[0].opt, trainer.model)

    def on_before_epoch(self, trainer: Any, **_: Any) -> None:
        self._join("before_epoch", trainer)

    def on_before_train_epoch(self, trainer: Any, task: Any) -> None:
        self._join("before_train_epoch", trainer)


@pytest.mark.filterwarnings("ignore:Weights of the model get gradients")
@pytest.mark.parametrize("where", ["before_epoch", "before_train_epoch", "between fits"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_so_it_is_where_they_join_between_epochs_or_fits(
    where: str, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "JOIN_AT", len(DL))
    model = copy.deepcopy(START)
    trainer = Trainer(
        model, F.cross_entropy, head_only(model), 3, callbacks=JoinsAtEpoch(where),
        grad_accumulate=accumulate, show_info=False,
    )  # fmt: skip
    if where == "between fits":
        trainer.fit(DL, epochs=1)
        join(trainer.opt[0].opt, model)
        trainer.fit(DL, epochs=2)
    else:
        trainer.fit(DL)
    assert same(weights(model), by_hand(accumulate))


def test_the_stale_gradients_would_be_seen() -> None:
    model = copy.deepcopy(START)
    opt = head_only(model)
    for index, (x, y) in enumerate(batch for _ in range(3) for batch in DL):
        if index == JOIN_AT:
            join(opt, model)
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    assert not same(weights(model), by_hand())


def test_a_weight_that_two_optimizers_share_keeps_its_gradient() -> None:
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    opts = Optimizers([torch.optim.SGD([one], 0.1), torch.optim.SGD([other], 0.1)])
    one.grad = torch.ones(2)
    opts[1].opt.add_param_group({"params": [one]})
    opts.drop_stale_gradients()
    assert one.grad is not None


# --- a loss that is a module


class Smoothed(nn.Module):
    """Smooths in training only, counts its calls there, draws, and has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.2)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, out: Tensor, y: Tensor, weight: float = 1.0) -> Tensor:
        if self.training:
            self.seen += 1
        smoothing = 0.3 if self.training else 0.0
        return weight * F.cross_entropy(self.drop(out) * self.scale, y, label_smoothing=smoothing)


class Several:
    """A function that holds modules in a list."""

    def __init__(self, *parts: nn.Module) -> None:
        self.parts = nn.ModuleList(parts)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        return torch.stack([part(out, y) for part in self.parts]).mean()

    def method(self, out: Tensor, y: Tensor) -> Tensor:
        return self(out, y)


def by_its_name(loss: Smoothed) -> Any:
    """A function of a script, where the loss is a global name."""

    def scaled(out: Tensor, y: Tensor) -> Tensor:
        return 2.0 * criterion(out, y)  # type: ignore[name-defined]  # noqa: F821

    return FunctionType(scaled.__code__, {"criterion": loss})


FORMS: dict[str, Callable[[Smoothed], Any]] = {
    "itself": lambda loss: loss,
    "in a partial": lambda loss: partial(loss, weight=2.0),
    "in an object": lambda loss: Several(loss),
    "in a method of an object": lambda loss: Several(loss).method,
    "in a closure": lambda loss: lambda out, y: loss(out, y.long()),
    "in a default": lambda loss: lambda out, y, inner=loss: inner(out, y),
    "in a global": by_its_name,
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Iterator[Callable[[Smoothed], Any]]:
    yield FORMS[request.param]


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def test_its_mode_follows_the_stage_and_is_put_back(form: Callable[[Smoothed], Any]) -> None:
    model, loss = linear(), Smoothed()
    trainer = Trainer(model, form(loss), epochs=2, show_info=False)
    history = trainer.fit(DL, DL)
    assert int(loss.seen) == 2 * len(DL)
    loss.eval()
    with torch.no_grad():
        wanted = sum(float(form(loss)(model(x), y)) for x, y in DL) / len(DL)
    assert history["val"]["loss"][-1] == pytest.approx(wanted, abs=1e-6)
    loss.train()
    assert trainer.test(DL)["loss"] == pytest.approx(wanted, abs=1e-6)
    assert loss.training and loss.drop.training


def test_its_weights_are_trained_without_an_optimizer_of_ones_own(
    form: Callable[[Smoothed], Any],
) -> None:
    model, loss = linear(), Smoothed()
    other_model, other_loss = copy.deepcopy(model), copy.deepcopy(loss)
    torch.manual_seed(3)
    Trainer(model, form(loss), epochs=2, show_info=False).fit(DL)
    torch.manual_seed(3)
    opt = torch.optim.Adam([*other_model.parameters(), *other_loss.parameters()], 0.001)
    for _ in range(2):
        for x, y in DL:
            opt.zero_grad()
            form(other_loss)(other_model(x), y).backward()
            opt.step()
    assert same(weights(model), weights(other_model))
    assert torch.equal(loss.scale, other_loss.scale)
    assert loss.scale.item() != 1


def test_its_weights_and_buffers_are_saved_and_resumed(
    form: Callable[[Smoothed], Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(epochs: int, **options: Any) -> tuple[list[Tensor], Smoothed]:
        torch.manual_seed(4)
        model, loss = linear(), Smoothed()
        check = CheckCallback("loss", on_stage="train")
        trainer = Trainer(
            model, form(loss), epochs=epochs, callbacks=check, show_info=False, **options
        )
        trainer.fit(DL)
        return weights(model), loss

    whole, loss = run(3)
    run(1, running_id="cut")
    resumed, again = run(3, running_id="cut", resume=True)
    assert same(whole, resumed)
    assert torch.equal(again.scale, loss.scale)
    assert int(again.seen) == int(loss.seen) == 3 * len(DL)


@pytest.mark.parametrize("name", ["in a partial", "in an object"])
def test_a_checkpoint_without_the_modules_that_a_function_holds_still_loads(name: str) -> None:
    loss = Smoothed()
    trainer = Trainer(linear(), FORMS[name](loss), show_info=False)
    state = trainer.state_dict()
    assert state.pop("loss_parts")
    loss.seen.fill_(7)
    trainer.load_state_dict(state)
    assert int(loss.seen) == 7


def test_a_search_for_a_rate_puts_the_modules_of_a_loss_back(
    form: Callable[[Smoothed], Any],
) -> None:
    loss = Smoothed()
    Trainer(linear(), form(loss), show_info=False).find_lr(DL, max_batch=5)
    assert (int(loss.seen), loss.scale.item()) == (0, 1.0)


class Distilled(nn.Module):
    """Holds a teacher, which is in evaluation mode for good."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        self.modes.add((self.training, self.teacher[1].training))
        return F.cross_entropy(out + self.teacher(out), y)


def test_a_part_of_a_loss_that_is_in_evaluation_mode_stays_in_it() -> None:
    loss = Distilled()
    trainer = Trainer(linear(), loss, epochs=2, show_info=False)
    trainer.fit(DL, DL)
    trainer.find_lr(DL, max_batch=3)
    assert loss.modes == {(True, False), (False, False)}
    assert loss.training and not loss.teacher.training


def test_what_a_function_calls_in_evaluation_mode_is_no_part_of_the_loss() -> None:
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).eval()
    before = weights(teacher)

    def distil(out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, teacher(X[:4]))

    trainer = Trainer(linear(), distil, epochs=1, show_info=False)
    trainer.fit(DL)
    assert same(before, weights(teacher)) and not teacher.training
    assert trainer.loss_module is None


def test_a_loss_that_holds_the_model_leaves_the_model_its_own() -> None:
    model = linear()

    class Penalised:
        def __init__(self) -> None:
            self.model = model

        def __call__(self, out: Tensor, y: Tensor) -> Tensor:
            assert self.model.training == torch.is_grad_enabled()
            return F.cross_entropy(out, y) + self.model.weight.square().sum()

    trainer = Trainer(model.eval(), Penalised(), epochs=1, show_info=False)
    trainer.fit(DL, DL)
    assert trainer.loss_module is None
    assert "loss_parts" not in trainer.state_dict()


def test_a_loss_without_weights_or_buffers_makes_no_part_of_a_checkpoint(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check = CheckCallback("loss", on_stage="train")
    for loss in (nn.CrossEntropyLoss(), partial(nn.CrossEntropyLoss())):
        Trainer(linear(), loss, epochs=1, callbacks=check, running_id="plain", show_info=False).fit(
            DL
        )
        assert not {"loss_fn", "loss_parts"} & load("logs/plain/checkpoint.ckpt").keys()


def test_weights_of_a_loss_that_no_optimizer_trains_are_told_once(
    form: Callable[[Smoothed], Any],
) -> None:
    model, loss = linear(), Smoothed()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(UserWarning, match=r"no optimizer trains them: .*scale") as seen:
        Trainer(model, form(loss), opt, epochs=2, show_info=False).fit(DL)
    assert len(seen) == 1


def test_frozen_ones_are_not_told() -> None:
    model, loss = linear(), Smoothed().requires_grad_(False)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    Trainer(model, loss, opt, epochs=1, show_info=False).fit(DL)
