"""A trainer can be copied and pickled, and nothing keeps it alive that is not its user's."""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    InterpretCallback,
    LogCallback,
    ReportCallback,
    TrackerCallback,
    Trainer,
)

KINDS: dict[str, Callable[[Path], list[Callback]]] = {
    "none": lambda _: [],
    "check": lambda folder: [CheckCallback("loss", "train", ckpt_dir=folder)],
    "log": lambda folder: [LogCallback(folder, log_graph=True)],
    "report": lambda folder: [
        ReportCallback(folder),
        InterpretCallback(nn.CrossEntropyLoss(reduction="none"), 2, log_dir=folder),
    ],
    "tracker": lambda folder: [TrackerCallback("tensorboard", log_dir=folder)],
}


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


def make(callbacks: list[Callback], **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(
        model, F.cross_entropy, optimizer, epochs=1, callbacks=callbacks, show_info=False, **options
    )


def weights(trainer: Trainer) -> list[float]:
    return [value for weight in trainer.model.parameters() for value in weight.flatten().tolist()]


def by_pickle(trainer: Trainer) -> Trainer:
    copied: Trainer = pickle.loads(pickle.dumps(trainer))
    return copied


@pytest.mark.parametrize("how", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("log_tqdm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_before_and_after_a_fit_trains_alone(
    kind: str, log_tqdm: bool, how: Callable[[Trainer], Trainer], tmp_path: Path
) -> None:
    trainer = make(KINDS[kind](tmp_path), running_id="a", log_tqdm=log_tqdm)
    first = how(trainer)
    trainer.fit(loader())
    trained = weights(trainer)
    second = how(trainer)
    assert weights(second) == trained
    first.fit(loader())
    assert weights(first) == trained
    second.fit(loader(), epochs=1)
    assert weights(second) != trained and weights(trainer) == trained
    assert len(second.history["train"]["loss"]) == 2


@pytest.mark.parametrize("how", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_in_the_middle_of_a_fit_leaves_what_is_open(
    kind: str, how: Callable[[Trainer], Trainer], tmp_path: Path
) -> None:
    copies = []

    class Copies(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            mine = [self, *copies]
            copies.clear()
            trainer.callbacks.remove(self)
            copied = how(trainer)
            trainer.callbacks.append(self)
            copies.extend([*mine[1:], copied])

    trainer = make([*KINDS[kind](tmp_path), Copies()], running_id="a", log_tqdm=True)
    trainer.fit(loader())
    assert [copied.session for copied in copies] == [None] * 3
    copies[-1].running_id = "b"
    copies[-1].fit(loader(), epochs=1)
    assert len(copies[-1].history["train"]["loss"]) == 1


def test_a_trainer_whose_output_has_broken_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    trainer = make([])
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.warns(RuntimeWarning, match="Standard output cannot be written"):
        trainer.fit(loader())
    monkeypatch.undo()
    assert by_pickle(trainer).progress.epoch_idx == 1


def fitted_weights(trainer: Trainer) -> list[float]:
    trainer.fit(loader())
    return weights(trainer)


def test_a_spawned_process_trains_a_trainer_that_it_was_sent(tmp_path: Path) -> None:
    expected = fitted_weights(make([], running_id="here"))
    trainer = make(KINDS["check"](tmp_path), running_id="there")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(fitted_weights, (trainer,)) == expected
    assert (tmp_path / "there" / "checkpoint.ckpt").exists()


# --- what keeps a trainer alive


class Fails(Callback):
    def on_after_train_batch(self, **others: Any) -> None:
        raise ZeroDivisionError


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_trainer_is_freed_without_the_garbage_collector(
    kind: str, tmp_path: Path, no_collector: None
) -> None:
    if kind in ("log", "report"):  # what torch and matplotlib do once leaves circles
        make(KINDS[kind](tmp_path), running_id="warm").fit(loader())
        gc.collect()
    trainer = make(KINDS[kind](tmp_path), running_id="a", log_tqdm=True)
    trainer.fit(loader())
    trainer.test(loader())
    trainer.predict(loader())
    held = [weakref.ref(trainer), weakref.ref(trainer.model)]
    del trainer
    assert [one() for one in held] == [None, None]


def test_a_trainer_is_freed_after_an_error_a_search_and_a_resume(
    tmp_path: Path, no_collector: None
) -> None:
    held = []
    trainer = make([*KINDS["check"](tmp_path), Fails()], running_id="a")
    held.append(weakref.ref(trainer))
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.fit(loader())
    del caught
    trainer = make([])
    held.append(weakref.ref(trainer))
    trainer.find_lr(loader(), max_batch=3)
    make(KINDS["check"](tmp_path), running_id="b").fit(loader())
    trainer = make(KINDS["check"](tmp_path), running_id="b", resume="auto")
    held.append(weakref.ref(trainer))
    trainer.fit(loader())
    trainer.fit(loader(), epochs=1)
    del trainer
    assert [one() for one in held] == [None] * 3


def test_a_circle_keeps_a_trainer(no_collector: None) -> None:
    """The control: what these tests look at can be seen."""
    trainer = make([])
    trainer.fit(loader())
    trainer.model.owner = [trainer]  # type: ignore[assignment]
    held = weakref.ref(trainer)
    del trainer
    assert held() is not None
    gc.collect()
    assert held() is None
