"""What is true during one call stays with it: a refused call leaves no trace on the trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    EpochTask,
    LoopException,
    ReportCallback,
    StopLoopException,
    Trainer,
)

DATA = [
    (torch.randn(8, 3, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 2)
    for i in range(4)
]


def make_trainer(**options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Trainer(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1),
        **{"show_info": False, **options},
    )  # fmt: skip


REFUSED: dict[str, dict[str, Any]] = {
    "a metric": {"train_dl": DATA, "metrics": "nonsense"},
    "two sources": {"train_dl": DATA, "train_tasks": EpochTask(DATA)},
    "no loader": {"train_dl": 3},
    "a frequency": {"train_dl": DATA, "val_freq": 0},
    "a number of epochs": {"train_dl": DATA, "epochs": -1},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_fit_changes_nothing_of_the_trainer(what: str) -> None:
    trainer = make_trainer(epochs=5)
    before = {name: repr(value) for name, value in vars(trainer).items()}
    with pytest.raises((ConfigError, LoopException)):
        trainer.fit(**{"epochs": 2, **REFUSED[what]})
    assert {name: repr(value) for name, value in vars(trainer).items()} == before
    assert trainer.max_epochs == 5 and not trainer.is_fit_run
    assert len(trainer.fit(DATA)["train"]["loss"]) == 5


def test_a_hook_that_fails_before_the_first_epoch_leaves_the_number_of_epochs() -> None:
    class Failing(Callback):
        def on_before_fit(self, **others: Any) -> None:
            raise OSError("no disk")

    trainer = make_trainer(epochs=3, callbacks=Failing())
    with pytest.raises(OSError, match="no disk"):
        trainer.fit(DATA, epochs=1)
    trainer.callbacks.pop()
    assert trainer.max_epochs == 3
    assert len(trainer.fit(DATA)["train"]["loss"]) == 3


def test_an_error_while_a_call_is_set_up_leaves_the_trainer_usable() -> None:
    callback = Callback()
    trainer = make_trainer(epochs=1, callbacks=callback)
    callback.order = "late"  # type: ignore[assignment]
    for call in (trainer.fit, trainer.test, trainer.predict):
        with pytest.raises(TypeError):
            call(DATA)  # type: ignore[operator]
        assert trainer.session is None
    callback.order = 1
    assert trainer.fit(DATA)["train"]["loss"]


def test_what_runs_now_has_one_answer() -> None:
    seen: dict[str, Any] = {}

    class Asking(Callback):
        acts_in_tries = True

        def note(self, where: str, trainer: Any) -> None:
            outer = []
            session = trainer.session
            while session is not None:
                outer.append(session.kind.value)
                session = session.outer
            seen[where] = outer, trainer.session.fit is not None, trainer.stage

        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            self.note("fit", trainer)
            trainer.test(DATA)
            trainer.find_lr(DATA, max_batch=2)
            self.note("fit again", trainer)

        def on_after_test_batch(self, trainer: Any, **others: Any) -> None:
            self.note("test", trainer)

        def on_before_optimize(self, trainer: Any, **others: Any) -> None:
            if trainer.session.kind.value == "find_lr":
                self.note("find_lr", trainer)

    trainer = make_trainer(epochs=1, callbacks=Asking())
    assert trainer.session is None
    trainer.test(DATA)
    assert seen.pop("test") == (["test"], False, "test")
    trainer.fit(DATA)
    assert trainer.session is None and trainer.run is None
    assert seen == {
        "fit": (["fit"], True, None),
        "test": (["test", "fit"], True, "test"),
        "find_lr": (["find_lr", "fit"], True, "train"),
        "fit again": (["fit"], True, None),
    }


def test_a_test_after_the_middle_of_an_epoch_was_loaded_is_no_test_inside_of_a_fit(
    tmp_path: Path,
) -> None:
    class Stop(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                trainer.stop("enough")

    check = CheckCallback("loss", on_stage="train", ckpt_dir=tmp_path)
    make_trainer(epochs=2, callbacks=[check, Stop()], running_id="a").fit(DATA)
    trainer = make_trainer(epochs=2, callbacks=ReportCallback(log_dir=tmp_path), running_id="b")
    with pytest.warns(UserWarning, match="the state of a CheckCallback is left out"):
        trainer.load_checkpoint(tmp_path / "a")
    trainer.test(DATA)
    assert (tmp_path / "b" / "report.html").exists()
    assert len(trainer.fit(DATA)["train"]["loss"]) == 2  # the loaded place is still there


@pytest.mark.parametrize("acts", [True, False])
def test_a_clipping_callback_of_the_users_own_takes_part_in_a_search_if_it_says_so(
    acts: bool,
) -> None:
    class OwnClipping(Callback):
        acts_in_tries = acts
        calls = 0

        def on_before_optimize(self, trainer: Any, optimize_index: Any) -> None:
            self.calls += 1
            for weight in trainer.model.parameters():
                weight.grad.mul_(0.0)

    clipping = OwnClipping()
    curve = make_trainer(callbacks=clipping).find_lr(DATA, max_batch=8, min_lr=0.1, max_lr=10)
    assert clipping.calls == (8 if acts else 0)
    assert (len({round(loss, 6) for loss in curve.losses}) == 4) == acts  # nothing was learnt


def test_a_stop_of_a_test_inside_a_fit_ends_the_fit_too() -> None:
    class Stopping(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            trainer.test(DATA)

        def on_after_test_batch(self, **others: Any) -> None:
            raise StopLoopException("enough")

    trainer = make_trainer(epochs=9, callbacks=Stopping())
    assert len(trainer.fit(DATA)["train"]["loss"]) == 1
    assert trainer.stop_reason == "enough"


def test_a_save_is_refused_where_nothing_runs() -> None:
    with pytest.raises(LoopException, match="only inside of a fit"):
        make_trainer().request_save(lambda trainer: None)


def test_a_trainer_can_be_copied_in_a_hook_and_the_copy_runs_nothing() -> None:
    copies: list[Trainer] = []

    class Copying(Callback):
        def on_after_train_epoch(self, trainer: Any, **others: Any) -> None:
            copies.append(copy.deepcopy(trainer))

    make_trainer(epochs=1, callbacks=Copying()).fit(DATA)
    assert copies[0].session is None and copies[0].run is None
    copies[0].callbacks.pop()
    assert len(copies[0].fit(DATA, epochs=1)["train"]["loss"]) == 1


def test_a_test_before_the_first_epoch_sees_the_epochs_of_the_fit_around_it() -> None:
    seen: list[tuple[int, bool]] = []

    class Looking(Callback):
        def on_before_fit(self, trainer: Any, epochs: int) -> None:
            trainer.test(DATA)

        def on_after_test_batch(self, trainer: Any, **others: Any) -> None:
            seen.append((trainer.max_epochs, trainer.is_interrupted))

    make_trainer(epochs=5, callbacks=Looking()).fit(DATA, epochs=2)
    assert seen == [(2, False)] * len(DATA)
