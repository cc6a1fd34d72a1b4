"""A state is loaded into another set-up: what fits goes on to the bit, what does not is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import Callback, Trainer, TrainerBase
from deepepochs.errors import CheckpointMismatch

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import base_fit, check, flat, through_a_file, unbroken


def at(make: Any, place: str) -> dict[str, Any]:
    """The state of an unbroken run at a place such as ``epoch 0 train 1``."""
    _, saver = unbroken(make)
    state: dict[str, Any] = through_a_file(saver.states[saver.places.index(place)])
    return state


class Counting(nn.Module):
    """Its outputs depend on a buffer that no ``state_dict`` has, and on one that grows."""

    seen: Tensor
    grown: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("grown", torch.ones(1), persistent=False)
        self.register_buffer("empty", None, persistent=False)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.seen += 1
            self.grown = torch.cat([self.grown, self.seen[None]])
        return self.linear(x) * (1 + self.seen / 10) + self.grown.mean()


def test_buffers_that_are_not_persistent_are_resumed() -> None:
    assert check(lambda *callbacks: base_fit(*callbacks, model=Counting), every=3) > 2


class Unfreeze(Callback):
    """Gradual unfreezing, as one writes it."""

    def on_before_epoch(self, trainer: TrainerBase, epoch_idx: int, **values: Any) -> None:
        if epoch_idx == 1:
            trainer.model[0].requires_grad_(True)  # type: ignore[index,operator]


def frozen_at_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def test_layers_that_a_callback_has_unfrozen_stay_so_after_a_resume() -> None:
    assert check(lambda *cbks: base_fit(Unfreeze(), *cbks, model=frozen_at_first), every=3) > 2


class OtherBuffers(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("more", torch.zeros(1), persistent=False)


@pytest.mark.parametrize(("saved", "here"), [(Counting, OtherBuffers), (OtherBuffers, Counting)])
def test_another_set_of_passing_buffers_is_refused_by_name(
    saved: type[nn.Module], here: type[nn.Module]
) -> None:
    state = through_a_file(base_fit(model=saved).trainer.state_dict())
    trainer = base_fit(model=here).trainer
    before = flat(trainer.state_dict())
    with pytest.raises(CheckpointMismatch, match=r"model\.more"):
        trainer.load_state_dict(state)
    assert flat(trainer.state_dict()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_load_keeps_no_second_model_on_the_device() -> None:
    model = nn.Linear(1000, 1000)
    size = 4 * 1000 * 1000
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, F.mse_loss, opt, show_info=False, device="cuda")
    state = through_a_file(trainer.state_dict())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.load_state_dict(state)
    assert torch.cuda.max_memory_allocated() - before < size / 2
