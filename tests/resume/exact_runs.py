"""Tiny fits that are saved at every save point, resumed in new objects, and compared to the bit."""

from __future__ import annotations

import copy
import io
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from deepepochs import Callback, ConsoleCallback, Optimizer, Trainer, TrainerBase
from deepepochs.nest.codec import from_plain, to_plain

sys.path.insert(0, str(Path(__file__).parent))
from cursor_kinds import LazySampler  # noqa: F401  (the loaders of the cursor's tests)

NUM = 11
EPOCHS = 2


class Samples(Dataset[Any]):
    """Real-valued samples, augmented from torch, NumPy and Python."""

    def __init__(self, num: int = NUM) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(num, 4, generator=g)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.1 * torch.randn(4) + 0.1 * np.random.rand() + 0.1 * random.random()
        return (self.x[index] + noise).float(), self.y[index]


class Fit(NamedTuple):
    """A trainer, and what its ``fit`` is called with."""

    trainer: Trainer
    options: dict[str, Any]


class SaveAlways(Callback):
    """Keeps a copy of the state at every save point."""

    order = 1000

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Any]] = []
        self.places: list[str] = []
        self.place = ""

    def keep(self, trainer: TrainerBase) -> None:
        self.states.append(copy.deepcopy(trainer.state_dict()))
        self.places.append(self.place)

    def on_after_train_batch(self, trainer: TrainerBase, metrics: Any, batch_idx: int) -> None:
        self.at(trainer, f"train {batch_idx}")

    def on_after_val_batch(self, trainer: TrainerBase, metrics: Any, batch_idx: int) -> None:
        self.at(trainer, f"val {batch_idx}")

    def on_after_epoch(self, trainer: TrainerBase, **values: Any) -> None:
        self.at(trainer, "end")

    def at(self, trainer: TrainerBase, place: str) -> None:
        self.place = f"epoch {trainer.progress.epoch_idx} {place}"
        trainer.request_save(self.keep)


class Silent(ConsoleCallback):
    """Prints nothing, at no time."""

    def on_after_epoch(self, trainer: TrainerBase, **values: Any) -> None:
        pass


class Outcome(NamedTuple):
    """All that must be equal after an unbroken and after a resumed run."""

    state: dict[str, Any]
    history: dict[str, Any]
    draws: tuple[float, float, float]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(to_plain(state), file)
    file.seek(0)
    return from_plain(torch.load(file, weights_only=True))


def seed_all(seed: int = 0) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
    )


def make_opt(model: nn.Module) -> Any:
    opt = torch.optim.Adam(model.parameters(), lr=0.02)
    return Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 1, 0.5))


def base_fit(
    *callbacks: Callback,
    train: Callable[[], Any] | None = None,
    val: Callable[[], Any] | None = None,
    opt: Callable[[nn.Module], Any] = make_opt,
    model: Callable[[], nn.Module] = make_model,
    cls: type[Trainer] = Trainer,
    fit: Callable[[], dict[str, Any]] | None = None,
    **options: Any,
) -> Fit:
    """Make a seeded trainer with its loaders, the same ones each time."""
    seed_all()
    net = model()
    options = {"epochs": EPOCHS, "show_info": False, **options}
    loss = options.pop("loss", F.cross_entropy)
    trainer = cls(net, loss, opt(net), callbacks=[Silent(), *callbacks], device="cpu", **options)
    if fit is not None:
        return Fit(trainer, fit())
    train_dl = (train or (lambda: DataLoader(Samples(), 3, shuffle=True)))()
    val_dl = (val or (lambda: DataLoader(Samples(5), 2)))()
    return Fit(trainer, {"train_dl": train_dl, "val_dl": val_dl})


Make = Callable[..., Fit]


def finish(fit: Fit) -> Outcome:
    history = fit.trainer.fit(**fit.options)
    state = copy.deepcopy(fit.trainer.state_dict())
    draws = float(torch.rand(())), float(np.random.rand()), random.random()
    return Outcome(state, dict(history), draws)


def unbroken(make: Make) -> tuple[Outcome, SaveAlways]:
    """Run to the end, saving at every save point."""
    saver = SaveAlways()
    outcome = finish(make(saver))
    return outcome, saver


def resumed(make: Make, state: dict[str, Any]) -> Outcome:
    """Run to the end from a state, in new objects and whatever random states there are."""
    fit = make(SaveAlways())
    seed_all(77)
    fit.trainer.load_state_dict(through_a_file(state))
    return finish(fit)


def flat(value: Any, where: str = "") -> dict[str, Any]:
    """Every entry of a nested state by its path, in bits."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, torch.Tensor):
        bits = value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else value
        return {where: (value.dtype, tuple(value.shape), bits.tolist())}
    elif isinstance(value, np.ndarray):
        return {where: (value.dtype.str, value.shape, value.tobytes())}
    else:
        return {where: (type(value), repr(value))}
    entries: dict[str, Any] = {where: (type(value), len(value))}
    for key, item in items:
        entries.update(flat(item, f"{where}.{key}"))
    return entries


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Paths of the entries that are not the same in both, to the bit."""
    first, second = flat(one._asdict()), flat(other._asdict())
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def check(make: Make, every: int = 1) -> int:
    """Assert that resuming at every n-th save point gives what the unbroken run gives."""
    whole, saver = unbroken(make)
    plain = finish(make())
    assert not {d for d in differences(whole, plain) if "callbacks" not in d}, "saving left a trace"
    chosen = list(zip(saver.places, saver.states, strict=True))[::every]
    for place, state in chosen:
        assert not differences(resumed(make, state), whole), f"resumed after {place}"
    return len(chosen)
