"""Reads event files back with TensorBoard's own reader, and makes the tests' small trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Trainer
from deepepochs.metrics import accuracy


def read_events(folder: Path) -> EventAccumulator:
    """All there is in a run's folder, nothing sampled away."""
    sizes = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=sizes).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, in the order of the files."""
    events = read_events(folder)
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def image_size(folder: Path, tag: str) -> tuple[int, int]:
    """Width and height of the last image of a tag."""
    image = read_events(folder).Images(tag)[-1]
    return image.width, image.height


def small_data(num: int = 48, seed: int = 3) -> TensorDataset:
    """Points `[num, 6]` of three classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (num,), generator=generator)
    points = torch.randn(num, 6, generator=generator)
    points[torch.arange(num), targets] += 2
    return TensorDataset(points, targets)


def small_model() -> nn.Sequential:
    """With what a mere look could disturb: dropout and running statistics."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def small_trainer(model: nn.Module | None = None, **arguments: Any) -> Trainer:
    """A quiet trainer for `small_data`."""
    model = small_model() if model is None else model
    opt = arguments.pop("opt", None) or torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    given = {"epochs": 2, "metrics": [accuracy], "show_info": False, **arguments}
    return Trainer(model, F.cross_entropy, opt, **given)


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Six shuffled mini-batches for training, two for validation or test."""
    return (
        DataLoader(small_data(), 8, shuffle=True),
        DataLoader(small_data(16, seed=4), 8),
    )


def outcome(trainer: Trainer, history: Any) -> tuple[dict[str, Tensor], Any, Tensor]:
    """Weights and statistics, metrics and the random state: what a watcher must not touch."""
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    values = {
        stage: {name: [float(v) for v in vs] for name, vs in metrics.items()}
        for stage, metrics in history.items()
    }
    return weights, values, torch.get_rng_state()


def assert_same_bits(first: Any, second: Any) -> None:
    assert first[1] == second[1]
    assert torch.equal(first[2], second[2])
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name


def run_bits(**arguments: Any) -> Any:
    """Fit under a fixed seed; give all that must be equal."""
    trainer = small_trainer(**arguments)
    torch.manual_seed(5)
    history = trainer.fit(*loaders())
    return outcome(trainer, history)
