"""A script with several fits, killed in any of them, goes on in the one it was in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from deepepochs import Callback, CheckCallback

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import base_fit, flat, through_a_file


class StopAt(Callback):
    """Stops after a training mini-batch, counted over all fits; so does the script."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        if trainer.progress.num_train_batches == self.num:
            trainer.stop("broken off")


class BrokenOff(Exception):
    """The process ends here."""


def script(folder: Path, stop_at: int = -1, between: bool = False) -> Any:
    """Two fits with something random in between."""
    callbacks = [CheckCallback("loss", ckpt_dir=folder), StopAt(stop_at)]
    fit = base_fit(*callbacks, running_id="r", resume="auto")

    def run(epochs: int) -> Any:
        history = fit.trainer.fit(**fit.options, epochs=epochs)
        if fit.trainer.stop_reason == "broken off":
            raise BrokenOff
        return dict(history)

    first = run(2)
    if between:
        raise BrokenOff
    torch.rand(3)
    second = run(3)
    return first, second, through_a_file(fit.trainer.state_dict()), torch.rand(2)


@pytest.mark.parametrize("stop_at", [3, 7, 9, 13, 18, None])
def test_broken_off_in_either_fit_or_between_them_the_script_ends_the_same(
    stop_at: int | None, tmp_path: Path
) -> None:
    whole = script(tmp_path / "whole")
    assert [len(history["train"]["loss"]) for history in whole[:2]] == [2, 3]
    with pytest.raises(BrokenOff):
        script(tmp_path / "r", stop_at or -1, between=stop_at is None)
    assert flat(script(tmp_path / "r")) == flat(whole)
