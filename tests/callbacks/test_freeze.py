"""`FreezeCallback`: the weights and statistics that stay, until when, and after a resume."""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import (
    Callback,
    ConfigError,
    FreezeCallback,
    GradClipCallback,
    Trainer,
    param_groups,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "resume"))
from exact_runs import base_fit, check

DATA = [(torch.randn(6, 4, generator=torch.Generator().manual_seed(s)), torch.arange(6) % 2)
        for s in range(3)]  # fmt: skip


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    return nn.Sequential(body, nn.BatchNorm1d(5), nn.Linear(5, 2))


class Watch(Callback):
    """Notes after each epoch which entries of the model have changed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Tensor] = {}
        self.changed: list[set[str]] = []

    def on_before_epoch(self, trainer: Any, **_: Any) -> None:
        self.before = copy.deepcopy(trainer.model.state_dict())

    def on_after_epoch(self, trainer: Any, **_: Any) -> None:
        now = trainer.model.state_dict()
        self.changed.append({n for n, v in now.items() if not torch.equal(v, self.before[n])})


def fit(*callbacks: Callback, epochs: int = 3, model: Any = None) -> tuple[Trainer, Watch]:
    watch = Watch()
    model = model or make_model()
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs=epochs, callbacks=[watch, *callbacks], console="off"
    )
    trainer.fit(DATA, DATA)
    return trainer, watch


BODY = {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}
STATISTICS = {f"0.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_weights_and_statistics_stay_for_the_first_epochs_and_move_then() -> None:
    trainer, watch = fit(FreezeCallback("0.*", epochs=2))
    everything = set(trainer.model.state_dict())
    assert watch.changed == [everything - BODY - STATISTICS] * 2 + [everything]
    assert all(weight.requires_grad for weight in trainer.model.parameters())
    assert trainer.model.training


def test_the_epochs_are_those_of_all_fits() -> None:
    trainer, watch = fit(FreezeCallback("0", epochs=2), epochs=1)
    trainer.fit(DATA, epochs=2)
    assert [bool(changed & BODY) for changed in watch.changed] == [False, False, True]


def test_what_was_frozen_before_stays_frozen() -> None:
    model = make_model()
    model[0][0].requires_grad_(False)
    _, watch = fit(FreezeCallback("0", epochs=1), model=model)
    assert [changed & BODY for changed in watch.changed] == [
        set(),
        *[{"0.1.weight", "0.1.bias"}] * 2,
    ]


def test_a_search_for_a_rate_trains_what_the_fit_would_train() -> None:
    trainer = Trainer(
        make_model(), F.cross_entropy, epochs=2, console="off", callbacks=FreezeCallback("0", 1)
    )
    seen: list[bool] = []
    handle = trainer.model[0][0].register_forward_pre_hook(  # type: ignore[index]
        lambda layer, _: seen.append(layer.weight.requires_grad)
    )
    trainer.find_lr(DATA, max_batch=4)
    handle.remove()
    assert not any(seen)
    assert all(weight.requires_grad for weight in trainer.model.parameters())


@pytest.mark.parametrize("name", ["find_lr", "profile", "find_batch_size"])
def test_a_try_before_the_fit_does_not_count_as_freezing(name: str) -> None:
    freeze = FreezeCallback("0", 1)
    model = make_model()
    trainer = Trainer(model, F.cross_entropy, epochs=2, console="off", callbacks=freeze)
    data = DataLoader([(x[0], y[0]) for x, y in DATA] * 4, batch_size=4)
    getattr(trainer, name)(data)
    assert freeze.state_dict() == {"frozen": []}
    model[0][0].requires_grad_(False)  # by the user, for good
    trainer.fit(data)
    flags = [weight.requires_grad for weight in model.parameters()]
    assert flags == [False, False, True, True, True, True, True, True]


def test_with_groups_the_frozen_part_goes_on_with_a_rate_of_its_own() -> None:
    model = make_model()
    opt = torch.optim.SGD(param_groups(model, {"0": {"lr": 0.0}}), lr=0.1)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs=2, console="off",
        callbacks=[FreezeCallback("0", epochs=1), GradClipCallback(1.0, norm_type=2)],
    )  # fmt: skip
    before = model[0][0].weight.clone()
    trainer.fit(DATA)
    assert torch.equal(before, model[0][0].weight)


def test_resumed_after_every_mini_batch_the_run_is_the_unbroken_one() -> None:
    def make(*callbacks: Callback) -> Any:
        return base_fit(FreezeCallback(["0", "1.*"], epochs=1), *callbacks, ema=0.9)

    assert check(partial(make)) == 16


@pytest.mark.parametrize(
    ("names", "epochs", "told"),
    [
        (
            "bdy.*",
            1,
            "FreezeCallback: 'bdy.*' matches no weight of the model. Its weights are 0.0.weight",
        ),
        (["0.*", "9"], 1, "FreezeCallback: '9' matches no weight"),
        ([], 1, "FreezeCallback: [] is no pattern of names"),
        (nn.Linear(1, 1), 1, "is no pattern of names: give 'backbone.*'"),
        ("0.*", 0, "epochs=0: give an int of at least 1"),
    ],
)
def test_a_mistake_is_told_before_the_fit(names: Any, epochs: Any, told: str) -> None:
    with pytest.raises(ConfigError) as info:
        fit(FreezeCallback(names, epochs))
    assert told in str(info.value)
