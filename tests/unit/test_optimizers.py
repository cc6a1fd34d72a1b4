"""Optimizers with their schedulers: what moves when, and state that is restored or refused."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import lr_scheduler as schedulers

from deepepochs import Callback, Trainer
from deepepochs.errors import CheckpointMismatch, ConfigError, ConfigTypeError
from deepepochs.optim.optimizers import LinearCosineScheduler, Optimizer, Optimizers

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: schedulers.StepLR(o, 2, 0.5),
    "multi": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 10),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "one_cycle": lambda o: schedulers.OneCycleLR(o, 0.3, total_steps=20),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.01, 0.3, step_size_up=3),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda t: 1 / (t + 1)),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], [3]
    ),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "linear_cosine": lambda o: LinearCosineScheduler(o, 0.3, 3, 12, 0.01),
    "plateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
}


def model(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, width)


def sgd(net: nn.Module | None = None, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD((net or model()).parameters(), lr=0.1, momentum=0.9, **options)


def backward(net: nn.Module, step_idx: int) -> torch.Tensor:
    batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(step_idx))
    loss = net(batch).square().mean()
    loss.backward()
    return loss.detach()


def train(net: nn.Module, opt: Optimizer | Optimizers, steps: range) -> list[Any]:
    rates = []
    for step_idx in steps:
        opt.drop_gradients()
        loss = backward(net, step_idx)
        opt.step("step", loss)
        opt.step("epoch", loss)
        rates.append(opt.get_current_lr())
    return rates


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# --- what moves when


def test_a_step_equals_the_step_of_torch_to_the_bit() -> None:
    net, twin = model(), model()
    opt, bare = Optimizer(sgd(net)), sgd(twin)
    for step_idx in range(4):
        opt.drop_gradients()
        backward(net, step_idx)
        opt.step()
        bare.zero_grad()
        backward(twin, step_idx)
        bare.step()
    assert torch.equal(net.weight, twin.weight)


@pytest.mark.parametrize("sched_on", ["step", "epoch"])
def test_the_scheduler_moves_at_its_moment_alone(sched_on: str) -> None:
    torch_opt = sgd()
    opt = Optimizer(torch_opt, schedulers.ExponentialLR(torch_opt, 0.5), sched_on)
    opt.step("step")
    after_step = opt.get_current_lr()
    opt.step("epoch")
    after_epoch = opt.get_current_lr()
    assert (after_step, after_epoch) == ((0.05, 0.05) if sched_on == "step" else (0.1, 0.05))


def test_an_epoch_leaves_the_weights_alone() -> None:
    net = model()
    before = net.weight.detach().clone()
    opt = Optimizer(sgd(net))
    backward(net, 0)
    opt.step("epoch")
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("sched_on", ["step", "epoch"])
@pytest.mark.parametrize("sched_with_loss", [False, True])
def test_a_plateau_scheduler_gets_the_loss(sched_on: str, sched_with_loss: bool) -> None:
    torch_opt = sgd()
    plateau = schedulers.ReduceLROnPlateau(torch_opt, patience=0, factor=0.5)
    opt = Optimizer(torch_opt, plateau, sched_on, sched_with_loss)
    for loss in (1.0, torch.tensor(2.0)):
        opt.step("step", loss)
        opt.step("epoch", loss)
    assert opt.needs_loss
    assert opt.get_current_lr() == 0.05


def test_a_plateau_scheduler_without_a_loss_is_an_error() -> None:
    torch_opt = sgd()
    opt = Optimizer(torch_opt, schedulers.ReduceLROnPlateau(torch_opt), "step")
    with pytest.raises(ConfigError, match="ReduceLROnPlateau wants a loss on every step"):
        opt.step()


def test_a_scheduler_without_loss_is_not_handed_the_loss() -> None:
    torch_opt = sgd()
    opt = Optimizer(torch_opt, schedulers.StepLR(torch_opt, 1, 0.5))
    opt.step("step")
    opt.step("epoch", loss=3.0)
    assert opt.get_current_lr() == 0.05


def test_a_scheduler_of_the_users_own_class_gets_the_loss_when_told() -> None:
    class Own:
        seen: float | None = None

        def step(self, loss: float) -> None:
            self.seen = loss

    own = Own()
    Optimizer(sgd(), own, sched_with_loss=True).step("epoch", 3.0)
    assert own.seen == 3.0


def test_optimizers_say_at_which_moment_a_loss_is_wanted() -> None:
    first, second = sgd(), sgd()
    opts = Optimizers([Optimizer(first), Optimizer(second, schedulers.ReduceLROnPlateau(second))])
    assert opts.needs_loss
    assert opts.needs_loss_at("epoch")
    assert not opts.needs_loss_at("step")


def test_after_step_moves_the_scheduler_and_not_the_weights() -> None:
    net = model()
    torch_opt = sgd(net)
    opts = Optimizers(
        [Optimizer(torch_opt, schedulers.ExponentialLR(torch_opt, 0.5), sched_on="step")]
    )
    backward(net, 0)
    torch_opt.step()
    weight = net.weight.detach().clone()
    opts.after_step()
    assert opts.get_current_lr() == [0.05]
    assert torch.equal(net.weight, weight)


def test_after_step_leaves_a_scheduler_on_epochs_alone() -> None:
    torch_opt = sgd()
    opts = Optimizers([Optimizer(torch_opt, schedulers.ExponentialLR(torch_opt, 0.5))])
    opts.after_step()
    assert opts.get_current_lr() == [0.1]


class SkippingSGD(torch.optim.SGD):
    """Says, as Accelerate's wrapper does, that its scaler left a step out."""

    skips = True

    @property
    def step_was_skipped(self) -> bool:
        return self.skips


def test_a_skipped_step_does_not_advance_the_scheduler() -> None:
    torch_opt = SkippingSGD(model().parameters(), lr=0.1)
    opt = Optimizer(torch_opt, schedulers.ExponentialLR(torch_opt, 0.5), sched_on="step")
    opt.step()
    assert opt.get_current_lr() == 0.1
    torch_opt.skips = False
    opt.step()
    assert opt.get_current_lr() == 0.05


def test_rates_are_of_the_first_group_and_of_the_scheduler() -> None:
    net = model()
    torch_opt = torch.optim.SGD([{"params": [net.weight], "lr": 0.3}, {"params": [net.bias]}], 0.1)
    bare = Optimizer(torch_opt)
    assert (bare.get_current_lr(), bare.get_last_lr()) == (0.3, None)
    opt = Optimizer(torch_opt, schedulers.ExponentialLR(torch_opt, 0.5))
    assert opt.get_last_lr() == [0.3, 0.1]
    assert opt.param_groups is torch_opt.param_groups


def test_optimizers_give_lists() -> None:
    first, second = sgd(), sgd()
    opts = Optimizers([first, Optimizer(second, schedulers.ExponentialLR(second, 0.5))])
    assert opts.get_current_lr() == [0.1, 0.1]
    assert opts.get_last_lr() == [None, [0.1]]
    assert opts.param_groups == [first.param_groups, second.param_groups]
    opts.step()
    opts.sched_step()
    assert opts.get_current_lr() == [0.1, 0.05]


# --- what is refused


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "opt=None: give a torch optimizer"),
        ("sgd", "opt='sgd' is a str: give an optimizer, such as torch.optim.SGD("),
        (torch.optim.SGD, "opt=SGD is a class: give an object, SGD(model.parameters()"),
        (model(), "opt is a model (Linear): the model comes first"),
        (Optimizer(sgd()), "it is an Optimizer already; give a torch optimizer"),
    ],
)
def test_something_that_is_no_torch_optimizer_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigTypeError) as caught:
        Optimizer(wrong)
    assert words in str(caught.value)


@pytest.mark.parametrize("wrong", ["cosine", schedulers.StepLR, 3])
def test_something_that_is_no_scheduler_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigTypeError, match="must be a learning-rate scheduler"):
        Optimizer(sgd(), wrong)


def test_an_unknown_moment_is_refused() -> None:
    with pytest.raises(ConfigError, match="sched_on='batch'"):
        Optimizer(sgd(), sched_on="batch")
    with pytest.raises(ConfigError, match="at='batch'"):
        Optimizer(sgd()).step("batch")


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_scheduler_of_another_optimizer_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="made for another optimizer"):
        Optimizer(sgd(), make(sgd()))


def test_a_loss_for_a_scheduler_that_takes_none_is_refused() -> None:
    torch_opt = sgd()
    with pytest.raises(ConfigError, match=r"StepLR\.step takes no loss"):
        Optimizer(torch_opt, schedulers.StepLR(torch_opt, 1), sched_with_loss=True)


def test_no_optimizers_and_one_twice_are_refused() -> None:
    one = sgd()
    with pytest.raises(ConfigError, match="at least one"):
        Optimizers([])
    with pytest.raises(ConfigError, match="twice"):
        Optimizers([one, Optimizer(one)])


# --- parameters and gradients


def test_dropping_gradients_leaves_none() -> None:
    net, twin = model(), model()
    opts = Optimizers([sgd(net), sgd(twin)])
    backward(net, 0)
    backward(twin, 0)
    assert len(opts.gradients()) == 4
    opts.drop_gradients()
    assert opts.gradients() == []
    assert all(p.grad is None for p in [*net.parameters(), *twin.parameters()])


def test_parameters_added_later_are_dropped_too() -> None:
    net, more, bias = model(), model(), nn.Parameter(torch.ones(2))
    opt = Optimizer(sgd(net))
    assert len(opt.params) == 2
    opt.opt.add_param_group({"params": list(more.parameters())})
    assert len(opt.params) == 4
    opt.param_groups[0]["params"].append(bias)
    assert len(opt.params) == 5
    bias.grad = torch.ones(2)
    opt.drop_gradients()
    assert bias.grad is None


def test_the_parameter_list_is_made_once() -> None:
    opt = Optimizer(sgd())
    assert opt.params is opt.params


def test_a_parameter_of_two_optimizers_is_listed_once() -> None:
    net = model()
    assert len(Optimizers([sgd(net), sgd(net)]).params) == 2


def test_a_zero_grad_of_the_users_own_is_called() -> None:
    class Own(torch.optim.SGD):
        calls = 0

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.calls += 1
            super().zero_grad(set_to_none)

    net = model()
    own = Own(net.parameters(), lr=0.1)
    backward(net, 0)
    Optimizer(own).drop_gradients()
    assert own.calls == 1
    assert net.weight.grad is None


# --- state


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_restored_schedule_goes_on_as_if_never_stopped(
    kind: str, make: Callable[..., Any]
) -> None:
    def start() -> tuple[nn.Module, Optimizer]:
        net = model()
        torch_opt: torch.optim.Optimizer = (
            sgd(net) if kind == "sgd" else torch.optim.Adam(net.parameters(), lr=0.1)
        )
        return net, Optimizer(torch_opt, make(torch_opt), sched_on="epoch")

    net, opt = start()
    train(net, opt, range(5))
    state = through_a_file({"net": net.state_dict(), "opt": opt.state_dict()})
    rest = train(net, opt, range(5, 10))

    again, opt_again = start()
    again.load_state_dict(state["net"])
    opt_again.load_state_dict(state["opt"])
    assert train(again, opt_again, range(5, 10)) == rest
    assert torch.equal(net.weight, again.weight)


def test_state_loaded_twice_from_memory_is_the_same_twice() -> None:
    net = model()
    torch_opt = torch.optim.Adam(net.parameters(), lr=0.1)
    opt = Optimizer(torch_opt, schedulers.MultiStepLR(torch_opt, [2, 4]))
    train(net, opt, range(3))
    snapshot = copy.deepcopy(opt.state_dict())
    kept = copy.deepcopy(snapshot)
    opt.load_state_dict(snapshot)
    train(net, opt, range(3))
    for index, entry in kept["opt_state"]["state"].items():
        for key, value in entry.items():
            assert torch.equal(snapshot["opt_state"]["state"][index][key], value)
    assert snapshot["sched_state"] == kept["sched_state"]


def test_the_state_of_one_may_come_bare_and_of_several_is_a_list() -> None:
    opts = Optimizers([sgd()])
    opts.load_state_dict(opts[0].state_dict())
    state = Optimizers([sgd(), sgd()]).state_dict()
    assert [sorted(one) for one in state] == [["opt_state", "sched_state"]] * 2
    with pytest.raises(CheckpointMismatch, match="2 optimizers and the trainer has 1"):
        opts.load_state_dict(state)


def test_a_file_in_the_form_of_release_06_loads() -> None:
    net = model()
    torch_opt = sgd(net)
    schedule = schedulers.StepLR(torch_opt, 2)
    train(net, Optimizer(torch_opt, schedule), range(3))
    old = {"opt_state": torch_opt.state_dict(), "sched_state": schedule.state_dict()}
    fresh = sgd()
    opts = Optimizers([Optimizer(fresh, schedulers.StepLR(fresh, 2))])
    opts.load_state_dict(through_a_file([old]))
    assert opts[0].scheduler.last_epoch == 3
    assert opts.get_current_lr() == [torch_opt.param_groups[0]["lr"]]


def trained_state(opt: torch.optim.Optimizer, net: nn.Module, **options: Any) -> dict[str, Any]:
    wrapped = Optimizer(opt, **options)
    train(net, wrapped, range(1))
    return wrapped.state_dict()


def foreign_states() -> dict[str, Callable[[], Any]]:
    def of(make: Callable[[nn.Module], torch.optim.Optimizer], width: int = 3) -> Any:
        net = model(width)
        return trained_state(make(net), net)

    def with_scheduler() -> Any:
        net = model()
        opt = torch.optim.Adam(net.parameters())
        return trained_state(opt, net, scheduler=schedulers.StepLR(opt, 1))

    return {
        "other shapes": lambda: of(lambda net: torch.optim.Adam(net.parameters()), width=5),
        "other kind": lambda: of(lambda net: sgd(net)),
        "AdamW": lambda: of(lambda net: torch.optim.AdamW(net.parameters())),
        "fewer parameters": lambda: of(lambda net: torch.optim.Adam([net.weight])),
        "more groups": lambda: of(
            lambda net: torch.optim.Adam([{"params": [p]} for p in net.parameters()])
        ),
        "a scheduler": with_scheduler,
        "torch's own": lambda: sgd().state_dict(),
        "a list": list,
        "no state": lambda: {"opt_state": {}, "sched_state": None},
    }


@pytest.mark.parametrize("make_state", foreign_states().values(), ids=foreign_states())
def test_a_foreign_state_is_refused_and_nothing_changed(make_state: Callable[[], Any]) -> None:
    net = model()
    opt = Optimizer(torch.optim.Adam(net.parameters(), lr=0.2))
    train(net, opt, range(1))
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(CheckpointMismatch):
        opt.load_state_dict(make_state())
    after = opt.state_dict()
    assert after["opt_state"]["param_groups"] == before["opt_state"]["param_groups"]
    for index, entry in before["opt_state"]["state"].items():
        for key, value in entry.items():
            assert torch.equal(after["opt_state"]["state"][index][key], value)


def test_a_state_that_does_not_say_what_made_it_is_told_apart_by_its_numbers() -> None:
    net = model()
    state = trained_state(torch.optim.Adam(net.parameters(), lr=0.2), net)
    del state["opt_state"]["made_by"]
    again = Optimizer(torch.optim.Adam(net.parameters()))
    again.load_state_dict(through_a_file(state))
    assert again.get_current_lr() == 0.2
    with pytest.raises(CheckpointMismatch, match="optimizer without dampening, momentum does not"):
        Optimizer(sgd(net)).load_state_dict(state)


def test_a_state_is_the_same_with_and_without_the_wrappers_of_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")

    def make() -> tuple[torch.optim.Optimizer, Any]:
        opt = sgd()
        return opt, schedulers.StepLR(opt, 1)

    bare = Optimizer(*make())
    wrapped = Optimizer(*accelerate.Accelerator(cpu=True).prepare(*make()))
    wrapped.load_state_dict(through_a_file(bare.state_dict()))
    bare.load_state_dict(through_a_file(wrapped.state_dict()))


def test_the_second_of_two_that_does_not_fit_leaves_the_first_unchanged() -> None:
    net = model()
    opts = Optimizers([sgd(net), sgd(model())])
    good, bad = Optimizer(sgd(model())).state_dict(), Optimizer(sgd(model(5))).state_dict()
    good["opt_state"]["param_groups"][0]["lr"] = 7.0
    bad["opt_state"]["param_groups"].pop()
    with pytest.raises(CheckpointMismatch):
        opts.load_state_dict([good, bad])
    assert opts.get_current_lr() == [0.1, 0.1]


@pytest.mark.parametrize("other", ["exponential", "cosine", "plateau", "sequential"])
def test_the_state_of_another_scheduler_is_refused(other: str) -> None:
    first, second = sgd(), sgd()
    state = Optimizer(first, SCHEDULERS[other](first)).state_dict()
    with pytest.raises(CheckpointMismatch, match="does not fit StepLR"):
        Optimizer(second, SCHEDULERS["step"](second)).load_state_dict(state)


def test_a_state_without_the_schedule_is_refused() -> None:
    torch_opt = sgd()
    opt = Optimizer(torch_opt, schedulers.StepLR(torch_opt, 1))
    with pytest.raises(CheckpointMismatch, match="the scheduler StepLR, and the checkpoint"):
        opt.load_state_dict(Optimizer(sgd()).state_dict())


# --- the schedule of our own


def test_linear_cosine_follows_its_formula() -> None:
    torch_opt = sgd()
    schedule = LinearCosineScheduler(torch_opt, 1.0, 4, 12, min_val=0.2)
    rates = []
    for _ in range(15):
        rates.append(torch_opt.param_groups[0]["lr"])
        torch_opt.step()
        schedule.step()
    cosine = [0.2 + 0.4 * (1 + math.cos(math.pi * t / 8)) for t in range(8)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *cosine, 0.2, 0.2, 0.2])


def test_linear_cosine_without_warmup_starts_at_the_top() -> None:
    torch_opt = sgd()
    LinearCosineScheduler(torch_opt, 0.5, 0, 10)
    assert torch_opt.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "numbers", [(-1.0, 1, 5), (math.inf, 1, 5), (1.0, 5, 5), (1.0, -1, 5), (1.0, 1, 5, 2.0)]
)
def test_linear_cosine_refuses_numbers_that_make_no_curve(numbers: Any) -> None:
    with pytest.raises(ConfigError, match="LinearCosineScheduler"):
        LinearCosineScheduler(sgd(), *numbers)


def test_torch_does_not_warn_in_normal_use() -> None:
    net = model()
    torch_opt = sgd(net)
    opts = Optimizers([Optimizer(torch_opt, schedulers.StepLR(torch_opt, 1), "step")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(net, opts, range(3))
        opts.load_state_dict(opts.state_dict())
        train(net, opts, range(3))


def trained(device: Any, make_opt: Callable[[nn.Linear], Any], **options: Any) -> Trainer:
    """A trainer after two epochs of three mini-batches."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    trainer = Trainer(
        model, nn.MSELoss(), make_opt(model), device=device, epochs=2, console="off", **options
    )
    trainer.fit([(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)])
    return trainer


DEVICES: dict[str, Callable[[], Any]] = {
    "alone": lambda: "cpu",
    "Accelerate": lambda: Accelerator(cpu=True),
}


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_of_an_own_class_of_optimizers_is_made(device: str) -> None:
    class Counting(Optimizer):
        moments: list[str]

        def step(self, at: str = "step", loss: Any = None) -> None:
            self.moments.append(at)
            super().step(at, loss)

    Counting.moments = []
    trained(DEVICES[device](), lambda model: Counting(torch.optim.SGD(model.parameters(), 0.1)))
    assert Counting.moments == [*["step"] * 3, "epoch"] * 2


@pytest.mark.parametrize("device", DEVICES)
def test_an_optimizer_that_a_hook_has_exchanged_makes_the_steps(device: str) -> None:
    class Exchange(Callback):
        def on_before_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx == 1:
                trainer.opt[0].opt = torch.optim.SGD(trainer.model.parameters(), 0.0)
                self.weight = trainer.model.weight.detach().clone()

    exchange = Exchange()
    trainer = trained(
        DEVICES[device](), lambda m: torch.optim.SGD(m.parameters(), 0.1), callbacks=exchange
    )
    torch.testing.assert_close(trainer.model.weight.detach(), exchange.weight, rtol=0, atol=0)


def test_a_scheduler_of_an_optimizer_that_accelerate_has_wrapped_moves_without_a_warning() -> None:
    accelerator = Accelerator(cpu=True)

    def wrapped(model: nn.Linear) -> Optimizer:
        opt = accelerator.prepare(torch.optim.SGD(model.parameters(), 1.0))
        return Optimizer(opt, schedulers.StepLR(opt, 2, gamma=0.5), sched_on="step")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained(accelerator, wrapped).opt[0].get_current_lr() == 0.125


def test_within_accumulate_a_step_by_hand_waits_for_the_window() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    weight = nn.Parameter(torch.ones(1))
    model = accelerator.prepare(nn.ParameterList([weight]))
    optimizer = Optimizer(accelerator.prepare(torch.optim.SGD([weight], 1.0)))
    values = []
    for _ in range(4):
        with accelerator.accumulate(model):
            weight.grad = torch.ones(1)
            optimizer.step()
            values.append(weight.item())
    assert values == [1.0, 0.0, 0.0, -1.0]


def test_every_group_has_a_name_for_its_rate_in_logs() -> None:
    def groups(*names: str | None) -> list[dict[str, Any]]:
        return [
            {"params": [nn.Parameter(torch.ones(1))], **({} if name is None else {"name": name})}
            for name in names
        ]

    several = torch.optim.SGD(groups("head", "body", "body", None), lr=0.5)
    single = torch.optim.SGD(groups("all"), lr=torch.tensor(0.25))
    opts = Optimizers([several, single])
    assert opts.named_lrs() == {
        "learning_rate_0": 0.5, "learning_rate_0_body": 0.5, "learning_rate_0_2": 0.5,
        "learning_rate_0_3": 0.5, "learning_rate_1": 0.25,
    }  # fmt: skip
    assert all(type(rate) is float for rate in opts.named_lrs().values())
    for group in several.param_groups:
        del group["lr"]
    assert opts.named_lrs() == {"learning_rate_1": 0.25}
