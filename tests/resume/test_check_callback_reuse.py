"""CheckCallback where a run's folder or a trainer is used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    ConfigError,
    RunLockedError,
    Trainer,
)
from deepepochs.runs.lock import RunLock

LOADER = [(torch.linspace(-1, 1, 12).view(4, 3) + i, torch.ones(4, 1)) for i in range(4)]


def constant(preds: Any, targets: Any) -> float:
    """A metric that never gets better."""
    return 1.0


def make_check_run(
    folder: Path,
    monitor: str,
    *,
    patience: int = 0,
    stop_after: int | None = None,
    resume: bool = False,
    more: Any = (),
) -> Trainer:
    """A tiny run with dropout whose state is checked; it may be stopped after some batches."""

    class StopAfter(Callback):
        def on_after_train_batch(self, *, trainer: Any, batch_idx: int, **others: Any) -> None:
            if batch_idx + 1 == stop_after:
                trainer.stop("in the test")

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    check = CheckCallback(monitor, mode="min", patience=patience, ckpt_dir=folder)
    return Trainer(
        model,
        torch.nn.functional.mse_loss,
        torch.optim.SGD(model.parameters(), lr=0.01),
        epochs=4,
        callbacks=[check, StopAfter(), *more],
        metrics=[constant],
        running_id="run",
        resume=resume,
        show_info=False,
    )


def test_a_test_leaves_alone_the_best_weights_of_an_earlier_run_of_the_same_id(
    tmp_path: Path,
) -> None:
    first = make_check_run(tmp_path, "loss")
    first.fit(LOADER, LOADER)
    second = make_check_run(tmp_path, "loss", stop_after=1)
    second.fit(LOADER, LOADER)
    before = [weight.clone() for weight in second.model.parameters()]
    second.test(LOADER)
    assert all(map(torch.equal, before, second.model.parameters()))


def test_a_further_fit_after_an_early_stop_has_its_patience_anew(tmp_path: Path) -> None:
    trainer = make_check_run(tmp_path, "constant", patience=1)
    assert len(trainer.fit(LOADER, LOADER)["train"]["loss"]) == 2
    assert len(trainer.fit(LOADER, LOADER, epochs=3)["train"]["loss"]) >= 1


def test_a_monitored_loss_that_validation_does_not_compute_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CallbackException, match="which val does not have"):
        make_check_run(tmp_path, "loss").fit(LOADER, LOADER, do_val_loss=False)


def test_two_of_them_in_one_folder_are_refused(tmp_path: Path) -> None:
    trainer = make_check_run(tmp_path, "loss", more=[CheckCallback("loss", ckpt_dir=tmp_path)])
    with pytest.raises(ConfigError, match="another ckpt_dir"):
        trainer.fit(LOADER, LOADER)


def test_a_refused_fit_can_be_tried_again_and_goes_on_where_it_would_have(tmp_path: Path) -> None:
    unbroken = make_check_run(tmp_path / "a", "loss")
    unbroken.fit(LOADER, LOADER)
    make_check_run(tmp_path / "b", "loss", stop_after=2).fit(LOADER, LOADER)
    again = make_check_run(tmp_path / "b", "loss", resume=True)
    with RunLock(tmp_path / "b" / "run"), pytest.raises(RunLockedError):
        again.fit(LOADER, LOADER)
    again.fit(LOADER, LOADER)
    assert all(map(torch.equal, unbroken.model.parameters(), again.model.parameters()))
