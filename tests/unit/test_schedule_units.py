"""Whether a schedule counts steps or epochs: what is told, and what is not."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import LinearCosineScheduler, Optimizer, Trainer

Make = Callable[[torch.optim.Optimizer], Any]
DL = DataLoader(TensorDataset(torch.randn(40, 4), torch.randint(2, (40,))), batch_size=4)
EPOCHS, STEPS = 5, 50


def hf_linear(step: int, *, num_warmup_steps: int, num_training_steps: int) -> float:
    """As the schedules of transformers are made."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    left = num_training_steps - step
    return max(0.0, left / max(1, num_training_steps - num_warmup_steps))


def cosine_of(total: int) -> Callable[[int], float]:
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step, total) / total))


FOR_STEPS: dict[str, Make] = {
    "one cycle": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=STEPS),
    "one cycle of another fit": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=400),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, STEPS),
    "cosine without the last batches": lambda o: schedulers.CosineAnnealingLR(o, STEPS - EPOCHS),
    "polynomial": lambda o: schedulers.PolynomialLR(o, STEPS),
    "linear decay": lambda o: schedulers.LinearLR(o, 1.0, 0.0, total_iters=STEPS),
    "linear warm-up": lambda o: schedulers.LinearLR(o, 0.1, total_iters=20),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, step_size_up=10),
    "warm-up from 0": lambda o: schedulers.LambdaLR(o, lambda k: min(1.0, k / 10)),
    "warm-up from about 0": lambda o: schedulers.LambdaLR(o, lambda k: min(1.0, (k + 1) / 500)),
    "of transformers": lambda o: schedulers.LambdaLR(
        o, functools.partial(hf_linear, num_warmup_steps=5, num_training_steps=STEPS)
    ),
    "of transformers without warm-up": lambda o: schedulers.LambdaLR(
        o, functools.partial(hf_linear, num_warmup_steps=0, num_training_steps=STEPS)
    ),
    "a function with a number": lambda o: schedulers.LambdaLR(o, cosine_of(STEPS)),
    "warm-up, then cosine": lambda o: schedulers.SequentialLR(
        o,
        [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.CosineAnnealingLR(o, STEPS - 3)],
        [3],
    ),
    "our own": lambda o: LinearCosineScheduler(o, 0.1, 5, STEPS),
}
FOR_EPOCHS: dict[str, Make] = {
    "step": lambda o: schedulers.StepLR(o, 1, 0.5),
    "step that never comes": lambda o: schedulers.StepLR(o, 30),
    "multi": lambda o: schedulers.MultiStepLR(o, [30, 60, 90]),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.95),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, EPOCHS),
    "cosine of a longer run": lambda o: schedulers.CosineAnnealingLR(o, 200),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 10, 2),
    "one cycle": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=EPOCHS + 1),
    "one cycle over two fits": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=9),
    "warm-up": lambda o: schedulers.LinearLR(o, 0.01, total_iters=3),
    "warm-up, then cosine": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.01, total_iters=2), schedulers.CosineAnnealingLR(o, 98)], [2]
    ),
    "a function": lambda o: schedulers.LambdaLR(o, lambda e: 0.95**e),
    "a function that warms up": lambda o: schedulers.LambdaLR(o, lambda e: min(1.0, (e + 1) / 5)),
    "a function with a number": lambda o: schedulers.LambdaLR(o, cosine_of(100)),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, total_iters=2), schedulers.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "plateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "our own": lambda o: LinearCosineScheduler(o, 0.1, 1, EPOCHS),
}


def told(
    make: Make, *, epochs: int = EPOCHS, fits: int = 1, trainer: Any = None, **options: Any
) -> list[str]:
    """Fit with a schedule, and return the warnings."""
    model = nn.Linear(4, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        # SequentialLR of torch 2.8 says this of itself.
        warnings.filterwarnings("ignore", "The epoch parameter in")
        optimizer = Optimizer(opt, make(opt), **options)
        one = Trainer(
            model, F.cross_entropy, optimizer, epochs=epochs, show_info=False, **(trainer or {})
        )
        for _ in range(fits):
            one.fit(DL, epochs=epochs)
    return [str(one.message) for one in seen]


@pytest.mark.parametrize("name", FOR_STEPS)
def test_a_schedule_for_steps_that_moves_on_epochs_is_told_once(name: str) -> None:
    (text,) = told(FOR_STEPS[name])
    assert "give sched_on='step' to Optimizer" in text


@pytest.mark.parametrize("name", FOR_STEPS)
def test_it_is_not_told_where_the_moment_was_given(name: str) -> None:
    assert told(FOR_STEPS[name], sched_on="epoch") == []


@pytest.mark.parametrize("name", FOR_STEPS)
def test_nor_where_it_moves_on_steps(name: str) -> None:
    assert told(FOR_STEPS[name], sched_on="step") == []


@pytest.mark.parametrize("name", FOR_EPOCHS)
def test_a_schedule_for_epochs_is_not_told(name: str) -> None:
    assert told(FOR_EPOCHS[name]) == []


def test_a_schedule_that_has_moved_is_not_told_in_a_later_fit() -> None:
    make = lambda o: schedulers.LambdaLR(o, lambda e: 0.3**e)  # noqa: E731
    assert told(make, epochs=5, fits=2) == []


def test_the_steps_of_an_accumulation_are_counted() -> None:
    make = lambda o: schedulers.CosineAnnealingLR(o, 15)  # noqa: E731
    assert told(make) == []
    (text,) = told(make, trainer={"grad_accumulate": 4})
    assert "CosineAnnealingLR has T_max=15" in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o: schedulers.CosineAnnealingLR(o, EPOCHS), "T_max=5, the number of epochs"),
        (lambda o: schedulers.ExponentialLR(o, 0.5), "multiplies the rate by 0.5 50 times"),
        (lambda o: schedulers.StepLR(o, 2, 0.1), "multiplies the rate by 0.1 25 times"),
    ],
)
def test_a_schedule_for_epochs_that_moves_on_steps_is_told(make: Make, words: str) -> None:
    (text,) = told(make, sched_on="step")
    assert words in text
    assert "with every optimizer step" in text


def test_the_warning_points_at_the_line_of_the_fit() -> None:
    model = nn.Linear(4, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = Optimizer(opt, FOR_STEPS["cosine"](opt))
    trainer = Trainer(model, F.cross_entropy, optimizer, epochs=EPOCHS, show_info=False)
    with pytest.warns(UserWarning, match="T_max=50") as seen:
        trainer.fit(DL)
    assert seen[0].filename == __file__
