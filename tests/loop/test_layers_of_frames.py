"""From `fit` to `backward` there are few frames, so that a traceback can be read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import deepepochs
from deepepochs import EpochTask, Trainer

HERE = str(Path(deepepochs.__file__).parent)


class Watched(torch.autograd.Function):
    """Passes a loss on; a hook on it sees the stack of the backward pass."""

    frames: list[tuple[str, bool]] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        frame: Any = sys._getframe()
        found = []
        while frame is not None:
            code = frame.f_code
            found.append((code.co_name, code.co_filename.startswith(HERE)))
            frame = frame.f_back
        Watched.frames = found[::-1]
        return gradients[0]


def watched_loss(model_out: Tensor, targets: Tensor) -> Any:
    return Watched.apply(F.mse_loss(model_out, targets))  # type: ignore[no-untyped-call]


class MyTask(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.loss(self.model(*batch_x), batch_y)


@pytest.mark.parametrize("task_class", [EpochTask, MyTask])
def test_four_calls_lead_from_fit_to_backward(task_class: type[EpochTask]) -> None:
    data = [(torch.ones(2, 3), torch.zeros(2, 1))]
    trainer = Trainer(nn.Linear(3, 1), watched_loss, epochs=1, show_info=False)
    trainer.fit(train_tasks=task_class(data))
    names = [name for name, _ in Watched.frames]
    # Before fit there is only what looks at its arguments, which is in no traceback.
    ours = [name for name, is_ours in Watched.frames if is_ours and name != "checked"]
    step = "train_step" if task_class is EpochTask else "step"
    start = names.index("fit")
    assert names[start : start + 5] == ["fit", "run_pass", step, "loss", "backward"]
    wanted = ["fit", "run_pass", "train_step", "loss", "backward"]
    assert ours == [name for name in wanted if step == "train_step" or name != "train_step"]
