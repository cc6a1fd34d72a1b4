"""Outputs and targets that are overwritten after they were recorded: the values are right, or it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import EpochTask, TensorPatch, Trainer
from deepepochs.errors import MetricError
from deepepochs.metrics import accuracy

BATCH = 8


def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 4, generator=generator), torch.randint(3, (32,), generator=generator)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


class Fresh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = layer()
        self.buffer = torch.zeros(BATCH, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class OneBuffer(Fresh):
    def forward(self, x: Tensor) -> Any:
        return self.buffer.copy_(self.layer(x))


class PartOfABuffer(Fresh):
    def forward(self, x: Tensor) -> Any:
        self.buffer[: len(x)] = self.layer(x)
        return self.buffer[: len(x)]


class MadeAtFirstUse(Fresh):
    made: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        if self.made is None:
            self.made = self.layer(x)
        else:
            self.made.copy_(self.layer(x))
        return self.made


class WrittenByNumpy(Fresh):
    """As an engine does, whose writing torch does not count."""

    def forward(self, x: Tensor) -> Any:
        self.buffer.numpy()[:] = self.layer(x).detach().numpy()
        return self.buffer.view(BATCH, 3)


def right() -> tuple[float, Tensor]:
    x, y = points()
    with torch.no_grad():
        outputs = layer()(x)
    return float(accuracy(outputs, y)), outputs


def trainer_of(model: nn.Module, metrics: Any = accuracy) -> Trainer:
    return Trainer(model, F.cross_entropy, metrics=metrics, show_info=False)


@pytest.fixture
def data() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*points()), BATCH)


MODELS = [Fresh, OneBuffer, PartOfABuffer, MadeAtFirstUse, WrittenByNumpy]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_may_use_one_buffer_for_all_outputs(model: Any, data: DataLoader[Any]) -> None:
    value, outputs = right()
    assert trainer_of(model()).test(data)["accuracy"] == value
    assert torch.equal(trainer_of(model()).predict(data), outputs)


@pytest.mark.parametrize("model", MODELS)
def test_so_it_may_with_a_torchmetrics_object(model: Any, data: DataLoader[Any]) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    metric = torchmetrics.Accuracy("multiclass", num_classes=3, average="micro")
    value = trainer_of(model(), metric).test(data)["MulticlassAccuracy"]
    assert value == pytest.approx(right()[0])


@pytest.mark.parametrize("by_numpy", [False, True])
def test_a_loader_may_fill_the_same_tensors_again(by_numpy: bool) -> None:
    class Refilling:
        def __init__(self) -> None:
            self.x, self.y = torch.zeros(BATCH, 4), torch.zeros(BATCH).long()

        def __iter__(self) -> Iterator[Any]:
            for x, y in zip(*(part.split(BATCH) for part in points()), strict=True):
                if by_numpy:
                    self.x.numpy()[:], self.y.numpy()[:] = x.numpy(), y.numpy()
                else:
                    self.x.copy_(x)
                    self.y.copy_(y)
                yield self.x, self.y

    assert trainer_of(layer()).test(Refilling())["accuracy"] == right()[0]


class Editing(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        self.edit(model_out, batch_y)

    def edit(self, model_out: Tensor, batch_y: Tensor) -> None:
        model_out.detach().zero_()
        batch_y.zero_()


def test_a_step_may_change_what_it_has_recorded(data: DataLoader[Any]) -> None:
    assert trainer_of(layer()).test(tasks=Editing(data))["accuracy"] == right()[0]


def test_that_it_changes_them_in_a_later_mini_batch_alone_is_told(data: DataLoader[Any]) -> None:
    class Later(Editing):
        def edit(self, model_out: Tensor, batch_y: Tensor) -> None:
            if self.run is not None and self.run.batch_idx == 2:
                batch_y.zero_()

    with pytest.raises(MetricError, match="changed in place after they were recorded"):
        trainer_of(layer()).test(tasks=Later(data))


def test_a_patch_that_was_loaded_before_a_change_says_so() -> None:
    outputs, targets = torch.ones(2, 3), torch.zeros(2).long()
    patch = TensorPatch(accuracy).load(outputs, targets)
    assert patch() == 1.0
    outputs.neg_()
    with pytest.raises(MetricError, match="changed in place after they were recorded"):
        patch()


class InInferenceMode(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return super().forward(inputs)


def test_outputs_of_inference_mode_are_predicted() -> None:
    model = InInferenceMode(4, 3)
    batches = list(torch.randn(3, 8, 4))
    predicted = Trainer(model, F.cross_entropy, show_info=False).predict(batches)
    assert torch.equal(predicted, torch.cat([model(batch) for batch in batches]))


def test_tensors_of_inference_mode_have_no_version_and_are_kept(data: DataLoader[Any]) -> None:
    class Inferring(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            with torch.inference_mode():
                self.loss(self.model(*batch_x), batch_y)

    assert trainer_of(OneBuffer()).test(tasks=Inferring(data))["accuracy"] == right()[0]


def test_mini_batches_that_come_again_are_not_taken_for_a_buffer() -> None:
    x, y = points()
    assert trainer_of(layer()).test([(x, y)] * 3)["accuracy"] == right()[0]
