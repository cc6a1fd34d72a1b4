"""A fit resumed at any save point is, to the bit, the fit that was never broken off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from deepepochs import (
    EMA,
    Callback,
    EpochTask,
    Optimizer,
    PatchBase,
    TensorPatch,
    Trainer,
    ValuePatch,
)
from deepepochs import metrics as dm

sys.path.insert(0, str(Path(__file__).parent))
import cursor_kinds as kinds
from exact_runs import (
    NUM,
    Fit,
    Samples,
    base_fit,
    check,
    differences,
    finish,
    make_model,
    resumed,
    seed_all,
    unbroken,
)


def test_resumed_after_every_mini_batch_and_epoch_the_run_is_the_unbroken_one() -> None:
    assert check(partial(base_fit, metrics=[dm.accuracy])) == 16


# --- optimizers and schedulers

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}
SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Optimizer]] = {
    "step": lambda o: Optimizer(o, lr_scheduler.StepLR(o, 1, 0.5)),
    "one cycle": lambda o: Optimizer(o, lr_scheduler.OneCycleLR(o, 0.1, total_steps=9), "step"),
    "plateau": lambda o: Optimizer(o, lr_scheduler.ReduceLROnPlateau(o, patience=0)),
    "chained warm-up": lambda o: Optimizer(
        o,
        lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.StepLR(o, 2, 0.5)]
        ),
        "step",
    ),
    "sequence": lambda o: Optimizer(
        o,
        lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 5)],
            [3],
        ),
        "step",
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_entry_of_the_final_state_is_the_same(optimizer: str, scheduler: str) -> None:
    def opt(model: nn.Module) -> Optimizer:
        return SCHEDULERS[scheduler](OPTIMIZERS[optimizer](model.parameters()))

    make = partial(base_fit, opt=opt, epochs=2)
    whole, saver = unbroken(make)
    for place in ("epoch 0 train 1", "epoch 0 end", "epoch 1 val 0"):
        state = saver.states[saver.places.index(place)]
        assert not differences(resumed(make, state), whole), place


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_an_optimizer_with_a_closure_resumes(search: str | None) -> None:
    def opt(model: nn.Module) -> Optimizer:
        of_torch = torch.optim.LBFGS(
            model.parameters(), lr=0.1, max_iter=3, history_size=4, line_search_fn=search
        )
        return Optimizer(of_torch, lr_scheduler.StepLR(of_torch, 3, 0.5), "step")

    assert check(partial(base_fit, opt=opt, metrics=[dm.accuracy])) == 16


# --- loaders


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


class OwnRandom(Samples):
    """Augments from generators of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(3)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index] + float(self.rng.normal()), self.y[index]


class Stream(torch.utils.data.IterableDataset[Any]):
    """Augmented samples in a row, without a length or a state."""

    def __iter__(self) -> Any:
        return map(Samples().__getitem__, torch.randperm(NUM).tolist())


class StatefulStream(Stream):
    """Knows where it is."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Any:
        samples = Samples()
        while self.position < NUM:
            self.position += 1
            yield samples[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class ShuffledBatches:
    """A batch sampler that gives lists of several lengths."""

    def __iter__(self) -> Any:
        return (part.tolist() for part in torch.randperm(NUM).split([3, 2, 4, 2]))

    def __len__(self) -> int:
        return 4


def table(num: int = NUM) -> TensorDataset:
    samples = Samples(num)
    return TensorDataset(samples.x, samples.y)


def stateful_loader() -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Samples(), 3, shuffle=True)


def stateful_stream() -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(StatefulStream(), 3)


LOADERS: dict[str, Callable[[], Any]] = {
    "own generator": lambda: DataLoader(Samples(), 3, shuffle=True, generator=generator()),
    "data set with a generator": lambda: DataLoader(OwnRandom(), 3, shuffle=True),
    "random sampler": lambda: DataLoader(
        Samples(), 3, sampler=RandomSampler(Samples(), True, 14, generator())
    ),
    "lazy sampler": lambda: DataLoader(Samples(), 3, sampler=kinds.LazySampler()),
    "sampler with a generator": lambda: DataLoader(Samples(), 3, sampler=kinds.EagerSampler()),
    "stateful sampler": lambda: DataLoader(Samples(), 3, sampler=kinds.StatefulSampler()),
    "batch sampler": lambda: DataLoader(Samples(), batch_sampler=ShuffledBatches()),
    "lazy batch sampler": lambda: DataLoader(
        Samples(), batch_sampler=BatchSampler(kinds.LazySampler(), 4, drop_last=True)
    ),
    "tensors": lambda: DataLoader(table(), 3, shuffle=True),
    "tensors, own generator": lambda: DataLoader(table(), 3, shuffle=True, generator=generator()),
    "stream": lambda: DataLoader(Stream(), 3),
    "stateful stream": lambda: DataLoader(StatefulStream(), 3),
    "torchdata": stateful_loader,
    "torchdata, stream": stateful_stream,
    "list": lambda: [table()[i : i + 3] for i in (0, 3, 6)],
}


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("loader", LOADERS)
def test_the_loader_goes_on_with_the_mini_batches_that_were_to_come(loader: str) -> None:
    check(partial(base_fit, train=LOADERS[loader]), every=2)


def test_a_validation_loader_with_a_generator_goes_on_where_it_was() -> None:
    def val() -> Any:
        return DataLoader(Samples(5), 2, shuffle=True, generator=generator())

    check(partial(base_fit, val=val, train=LOADERS["own generator"]), every=2)


def test_loaders_that_share_a_generator_go_on_as_if_unbroken() -> None:
    def make(*callbacks: Callback) -> Fit:
        shared = OwnRandom()
        return base_fit(
            *callbacks,
            train=lambda: DataLoader(shared, 3, shuffle=True),
            val=lambda: DataLoader(shared, 4),
        )

    check(make, every=2)


def test_one_loader_for_training_and_validation_goes_on_as_if_unbroken() -> None:
    def make(*callbacks: Callback) -> Fit:
        shared = LOADERS["own generator"]()
        return base_fit(*callbacks, train=lambda: shared, val=lambda: shared)

    check(make, every=2)


@pytest.mark.parametrize("persistent", [False, True])
def test_with_workers_and_augmentation_the_run_is_the_unbroken_one(persistent: bool) -> None:
    def train() -> Any:
        return DataLoader(Samples(), 3, shuffle=True, num_workers=2, persistent_workers=persistent)

    check(partial(base_fit, train=train), every=5)


# --- tasks, accumulation, metrics


class Largest(PatchBase):
    """A metric patch as users of 0.6 write them."""

    def __init__(self) -> None:
        super().__init__()
        self.value = -1e9

    def load(self, model_out: torch.Tensor) -> Largest:
        self.value = float(model_out.max())
        return self

    def forward(self) -> float:
        return self.value

    def add(self, other: Largest) -> Largest:
        self.value = max(self.value, other.value)
        return self


class PatchTask(EpochTask):
    """Returns patches of several classes from its step."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        return {
            "largest": Largest().load(model_out.detach()),
            "mean": ValuePatch(len(batch_y)).load(model_out.mean().item()),
            "share": TensorPatch(share).load(model_out.detach(), batch_y),
        }


def share(preds: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    return {"zero": (preds.argmax(1) == 0).float().mean().item(), "one": float(targets.sum())}


def tasks(num_train: int, num_val: int, cls: type[EpochTask]) -> Callable[[], dict[str, Any]]:
    def fit() -> dict[str, Any]:
        training = [
            cls(DataLoader(Samples(5 + i), 3, shuffle=True, generator=generator()))
            for i in range(num_train)
        ]
        validation = [cls(DataLoader(Samples(4 + i), 2)) for i in range(num_val)]
        return {"train_tasks": training, "val_tasks": validation}

    return fit


@pytest.mark.parametrize("cls", [EpochTask, PatchTask])
def test_several_tasks_go_on_as_if_unbroken(cls: type[EpochTask]) -> None:
    assert check(partial(base_fit, fit=tasks(2, 3, cls), metrics=[dm.accuracy]), every=2) > 10


@pytest.mark.parametrize("window", [2, 3])
def test_an_accumulation_window_goes_on_where_it_was(window: int) -> None:
    check(partial(base_fit, grad_accumulate=window))


def test_a_window_that_no_length_announces_is_closed_after_a_resume_at_its_last_batch() -> None:
    def opt(model: nn.Module) -> Optimizer:
        one = torch.optim.SGD(model.parameters(), lr=0.1)
        return Optimizer(one, lr_scheduler.ReduceLROnPlateau(one, patience=0), "step")

    check(partial(base_fit, grad_accumulate=3, train=LOADERS["stream"], opt=opt))


def with_a_weight_of_the_optimizer_alone(*callbacks: Callback, **options: Any) -> Fit:
    """The loss is scaled by a plain tensor of the script that is trained along."""
    log_scale = torch.zeros(2, requires_grad=True)

    def loss(model_out: torch.Tensor, batch_y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model_out * log_scale.exp(), batch_y) + log_scale.sum()

    def opt(model: nn.Module) -> Any:
        return torch.optim.Adam([*model.parameters(), log_scale], lr=0.02)

    return base_fit(*callbacks, loss=loss, opt=opt, **options)


@pytest.mark.parametrize("window", [1, 3])
def test_a_weight_that_only_the_optimizer_has_goes_on_where_it_was(window: int) -> None:
    check(partial(with_a_weight_of_the_optimizer_alone, grad_accumulate=window), every=3)


def test_a_weight_of_the_optimizer_that_a_callback_has_unfrozen_stays_so() -> None:
    class Unfreeze(Callback):
        def on_before_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
            weight = trainer.opt[0].params[-1]
            if epoch_idx == 0:
                weight.requires_grad_(False)
            elif epoch_idx == 1:
                weight.requires_grad_()

    def make(*callbacks: Callback) -> Fit:
        return with_a_weight_of_the_optimizer_alone(*callbacks, Unfreeze(), epochs=3)

    whole, saver = unbroken(make)
    for place in ("epoch 0 train 2", "epoch 1 train 1", "epoch 2 train 1"):
        state = saver.states[saver.places.index(place)]
        assert not differences(resumed(make, state), whole), place


def test_such_a_weight_comes_with_the_weights_and_is_put_back_by_a_search() -> None:
    fit = with_a_weight_of_the_optimizer_alone()
    trained = finish(fit).state
    weight = trained["other_weights"]["optimizer_0_weight_6"]
    assert weight.any()
    other = with_a_weight_of_the_optimizer_alone().trainer
    other.load_weights(trained)
    own = other.opt[0].params[6]
    assert own.tolist() == weight.tolist()
    other.find_lr(fit.options["train_dl"], max_batch=5)
    assert own.tolist() == weight.tolist()


def of_matrix(conf_mat: torch.Tensor) -> float:
    return float(conf_mat.diagonal().sum() / conf_mat.sum())


@pytest.mark.parametrize("patch", ["tensor", "mean", "confusion"])
def test_metrics_of_every_kind_go_on_as_if_unbroken(patch: str) -> None:
    metric = of_matrix if patch == "confusion" else dm.accuracy
    check(partial(base_fit, metrics=[metric], metric_patch=patch), every=2)


def test_a_torchmetrics_metric_goes_on_as_if_unbroken() -> None:
    import torchmetrics

    def make(*callbacks: Callback) -> Fit:
        auroc = torchmetrics.AUROC("multiclass", num_classes=2, thresholds=5)
        return base_fit(*callbacks, metrics=[auroc])

    check(make, every=2)


class Halves(Trainer):
    """Two optimizers, stepped by hand."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        loss = self.loss_fn(self.model(*batch_x), batch_y)
        self.backward(loss)
        self.optimize(0)
        if self.run is not None and self.run.batch_idx % 2:
            self.optimize(1)
        self.do_metric(loss)


@pytest.mark.filterwarnings("ignore:Weights of the model get gradients, and no optimizer")
def test_several_optimizers_with_waiting_gradients_go_on_as_if_unbroken() -> None:
    def opt(model: nn.Module) -> Any:
        first, last = model[0], model[4]  # type: ignore[index]
        one = torch.optim.SGD(last.parameters(), lr=0.1, momentum=0.9)
        return [torch.optim.Adam(first.parameters(), lr=0.01), one]

    check(partial(base_fit, opt=opt, cls=Halves), every=2)


class Scaled(nn.Module):
    """A loss with a weight that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, model_out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model_out * self.scale, targets)


def test_a_loss_with_weights_goes_on_as_if_unbroken() -> None:
    def make(*callbacks: Callback) -> Fit:
        loss = Scaled()

        def opt(model: nn.Module) -> Any:
            return torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.02)

        return base_fit(*callbacks, loss=loss, opt=opt)

    check(make, every=3)


def test_validation_every_other_epoch_goes_on_as_if_unbroken() -> None:
    def make(*callbacks: Callback) -> Fit:
        fit = base_fit(*callbacks, epochs=4)
        return Fit(fit.trainer, {**fit.options, "val_freq": 2})

    check(make, every=3)


# --- controls: with one part left out, something must differ


def without(state: dict[str, Any], part: str, fresh: dict[str, Any]) -> dict[str, Any]:
    return {**state, part: fresh[part]}


@pytest.mark.parametrize(
    ("part", "place", "seen_in"),
    [
        ("model", "epoch 0 train 1", "model"),
        ("optimizers", "epoch 0 end", "optimizers"),
        ("gradients", "epoch 0 train 1", "model"),
        ("history", "epoch 0 end", "history"),
        ("random", "epoch 0 train 1", "draws"),
        ("progress", "epoch 0 end", "history"),
        ("epoch", "epoch 0 train 1", "history"),
        ("loaders", "epoch 0 end", "model"),
        ("callbacks", "epoch 0 end", "callbacks"),
    ],
)
def test_with_one_part_left_out_the_run_is_another(part: str, place: str, seen_in: str) -> None:
    class Counts(Callback):
        """A callback with a state."""

        def __init__(self) -> None:
            super().__init__()
            self.num = 0

        def on_after_train_batch(self, **values: Any) -> None:
            self.num += 1

        def state_dict(self) -> dict[str, int]:
            return {"num": self.num}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.num = state["num"]

    def make(*callbacks: Callback) -> Fit:
        return base_fit(Counts(), *callbacks, grad_accumulate=3, train=LOADERS["own generator"])

    whole, saver = unbroken(make)
    state = saver.states[saver.places.index(place)]
    assert not differences(resumed(make, state), whole)
    fresh = make().trainer.state_dict()
    found = differences(resumed(make, without(state, part, fresh)), whole)
    assert any(seen_in in path for path in found), found


def test_a_run_with_an_average_of_its_weights_is_resumed_after_every_mini_batch() -> None:
    make = partial(base_fit, ema=EMA(0.8, warmup=10, every=2), grad_accumulate=2)
    assert check(make) == 16


@pytest.mark.parametrize("place", ["epoch 0 train 2", "epoch 0 val 1", "epoch 0 end"])
def test_without_its_average_the_run_is_another(place: str) -> None:
    make = partial(base_fit, ema=0.8)
    whole, saver = unbroken(make)
    state = saver.states[saver.places.index(place)]
    assert not differences(resumed(make, state), whole)
    del state["ema"]
    assert any("model" in path for path in differences(resumed(make, state), whole))


def test_a_checkpoint_of_another_average_goes_on_with_that_of_the_script_and_says_so() -> None:
    _, saver = unbroken(partial(base_fit, ema=0.8))
    with pytest.warns(
        UserWarning, match=r"goes on with EMA\(0\.9\) \(EMA\(0\.8\) in the checkpoint"
    ):
        base_fit(ema=0.9).trainer.load_state_dict(saver.states[0])


class SWA(Callback):
    """That of docs/weights.md."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.averaged = model, AveragedModel(model)

    def on_after_epoch(self, trainer: Any, epoch_idx: int, **values: Any) -> None:
        self.averaged.update_parameters(self.model)

    def state_dict(self) -> Any:
        return self.averaged.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.averaged.load_state_dict(state)


def test_stochastic_averaging_by_a_callback_is_resumed() -> None:
    def opt(model: nn.Module) -> Optimizer:
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        parts = [lr_scheduler.CosineAnnealingLR(sgd, 3), SWALR(sgd, swa_lr=0.05, anneal_epochs=1)]
        return Optimizer(sgd, lr_scheduler.SequentialLR(sgd, parts, [1]))

    def make(*others: Callback) -> Fit:
        seed_all()
        model = make_model()
        return base_fit(SWA(model), *others, opt=opt, model=lambda: model)

    assert check(make, every=3) > 0


class Replacing(torch.optim.SGD):
    """Gives its weights a new storage in each step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            weight.data = weight.data - 0.1 * weight.grad


def test_a_search_puts_back_a_plain_tensor_that_got_another_storage() -> None:
    shift = torch.zeros(2, requires_grad=True)
    net = nn.Linear(4, 2)
    opt = Replacing([*net.parameters(), shift], lr=0.1)
    trainer = Trainer(net, lambda out, y: F.cross_entropy(out + shift, y), opt, show_info=False)
    trainer.find_lr(DataLoader(Samples(), 3), max_batch=5)
    assert shift.tolist() == [0.0, 0.0]
