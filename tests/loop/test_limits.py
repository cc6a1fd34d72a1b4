"""Limits of mini-batches: the first ones of each pass, as `itertools.islice` gives them by hand."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    EpochTask,
    RunRecordCallback,
    Trainer,
)
from deepepochs.fit.limits import Limits, seconds_of
from deepepochs.report import run_page
from deepepochs.runs.record import read_run
from deepepochs.stages import Stage

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(7))
Y = torch.arange(40) % 2


def loader(size: int = 4, **options: Any) -> DataLoader[Any]:
    options = {"shuffle": True, "generator": torch.Generator().manual_seed(5), **options}
    return DataLoader(TensorDataset(X, Y), size, **options)


def make_trainer(**options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 3, "console": "off", "device": "cpu", **options}
    return Trainer(model, F.cross_entropy, opt, **options)


def by_hand(data: Any, num: int, epochs: int = 3, window: int = 1) -> list[float]:
    """The losses of the epochs of a loop without the library."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    means = []
    for _ in range(epochs):
        total, count = 0.0, 0
        batches = list(islice(data, num))
        for index, (x, y) in enumerate(batches):
            start = index - index % window
            samples = sum(len(of) for of, _ in batches[start : start + window])
            loss = F.cross_entropy(model(x), y)
            (loss * (len(x) / samples)).backward()
            if (index + 1) % window == 0 or index + 1 == len(batches):
                opt.step()
                opt.zero_grad()
            total, count = total + loss.item() * len(x), count + len(x)
        means.append(total / count)
    return means


class Endless:
    """Mini-batches without an end, from the beginning at each walk."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from ((X[at : at + 4], Y[at : at + 4]) for at in range(0, 40, 4))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


DATA = {
    "tensors": loader,
    "workers": lambda: loader(num_workers=2),
    "persistent workers": lambda: loader(num_workers=2, persistent_workers=True),
    "samples": lambda: DataLoader(list(zip(X, Y, strict=True)), 4, shuffle=True),
    "stream": lambda: DataLoader(Stream(), 4),
    "list": lambda: [(X[at : at + 4], Y[at : at + 4]) for at in range(0, 40, 4)],
    "endless": Endless,
}


@pytest.mark.parametrize("name", DATA)
def test_a_limited_pass_has_the_mini_batches_and_losses_of_islice(name: str) -> None:
    trainer = make_trainer(limit_train_batches=3, worker_seeding="torch")
    losses = trainer.fit(DATA[name]())["train"]["loss"]
    assert trainer.progress.num_train_batches == trainer.progress.num_steps == 9
    assert losses == pytest.approx(by_hand(DATA[name](), 3), abs=1e-6)


class Notes(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self.seen.append((trainer.run.num_batches, trainer.run.is_last, float(metrics["loss"])))


def test_the_losses_are_those_of_islice_to_the_bit() -> None:
    notes, hand = Notes(), Notes()
    make_trainer(limit_train_batches=3, epochs=1, callbacks=notes).fit(loader())
    make_trainer(epochs=1, callbacks=hand).fit(list(islice(loader(), 3)))
    assert [loss for *_, loss in notes.seen] == [loss for *_, loss in hand.seen]


def test_a_limit_that_is_not_reached_changes_no_bit() -> None:
    limits = {"limit_train_batches": 100, "limit_val_batches": 1.0, "max_steps": 10**6}
    limited = make_trainer(**limits).fit(loader(), loader())
    assert limited == make_trainer().fit(loader(), loader())


def test_the_pass_knows_how_many_mini_batches_it_has_and_which_is_the_last() -> None:
    notes = Notes()
    make_trainer(limit_train_batches=3, callbacks=notes, epochs=1).fit(loader())
    assert [seen[:2] for seen in notes.seen] == [(3, False), (3, False), (3, True)]


def test_the_last_window_of_a_limited_pass_is_short_and_right() -> None:
    trainer = make_trainer(limit_train_batches=3, grad_accumulate=2)
    losses = trainer.fit(loader())["train"]["loss"]
    assert trainer.progress.num_steps == 6
    assert losses == pytest.approx(by_hand(loader(), 3, window=2), abs=1e-6)


def test_the_last_window_of_an_endless_loader_is_made_too() -> None:
    trainer = make_trainer(limit_train_batches=3, grad_accumulate=2)
    losses = trainer.fit(Endless())["train"]["loss"]
    assert trainer.progress.num_steps == 6
    assert losses == pytest.approx(by_hand(Endless(), 3, window=2), abs=1e-6)


@pytest.mark.parametrize(
    ("limit", "length", "num"),
    [
        (0.25, 40, 10),
        (0.29, 100, 29),
        (0.01, 8, 1),
        (1.0, 8, 8),
        (1, 8, 1),
        (9, 8, 8),
        (9, None, 9),
    ],
)
def test_a_count_and_a_share_of_a_pass(limit: Any, length: int | None, num: int) -> None:
    assert Limits(train=limit).num_batches(Stage.TRAIN, length) == num


def test_zero_switches_validation_and_test_off() -> None:
    trainer = make_trainer(limit_val_batches=0, limit_test_batches=0)
    assert list(trainer.fit(loader(), loader())) == ["train"]
    assert dict(trainer.test(loader())) == {}


def test_a_test_and_a_validation_are_limited_each_on_its_own() -> None:
    trainer = make_trainer(limit_val_batches=2, limit_test_batches=0.5)
    trainer.fit(loader(), loader())
    assert trainer.progress.num_val_batches == 6
    whole = trainer.test(loader(shuffle=False))["loss"]
    assert whole == make_like(trainer).test(list(islice(loader(shuffle=False), 5)))["loss"]


def make_like(trainer: Trainer) -> Trainer:
    other = make_trainer()
    other.model.load_state_dict(trainer.model.state_dict())
    return other


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limit_train_batches": 0}, "limit_train_batches=0: give a number"),
        ({"limit_val_batches": 5.0}, "For 5 mini-batches give 5."),
        ({"limit_val_batches": -1}, "0 switches the stage off"),
        ({"limit_test_batches": "all"}, "limit_test_batches='all' is a str"),
        ({"limit_train_batches": True}, "limit_train_batches=True is a bool"),
        ({"max_steps": 0}, "max_steps=0: give an int of at least 1"),
        ({"max_time": "soon"}, "max_time='soon': give seconds, a timedelta"),
        ({"max_time": 0}, "max_time=0: give seconds"),
        ({"val_every": 0}, "val_every=0"),
        ({"overfit_batches": 2, "limit_val_batches": 3}, "overfit_batches=2 already says"),
        ({"dry_run": "yes"}, "dry_run='yes'"),
    ],
)
def test_a_limit_that_cannot_be_right_is_refused_when_the_trainer_is_made(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_trainer(**options)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("90s", 90), ("2d", 172800), ("1.5h", 5400), ("2 min", 120), (3, 3)],
)
def test_a_time_is_read_from_text(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds == seconds_of(timedelta(seconds=seconds))


def test_a_share_of_a_loader_without_a_length_is_refused_before_the_fit() -> None:
    trainer = make_trainer(limit_train_batches=0.5)
    with pytest.raises(ConfigError, match="does not know how many it has: give a number"):
        trainer.fit(Endless())
    assert not trainer.is_fit_run


def test_overfit_trains_and_validates_on_the_first_mini_batches_in_order() -> None:
    trainer = make_trainer(overfit_batches=2)
    history = trainer.fit(loader(), loader(shuffle=False))
    first = list(islice(loader(shuffle=False), 2))
    hand = make_trainer().fit(first, first)
    assert dict(history) == dict(hand) and history["val"]["loss"]


def test_overfit_keeps_the_steps_of_the_tasks() -> None:
    class Doubling(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return {"double": 2 * batch_y.float().mean()}

    trainer = make_trainer(overfit_batches=1)
    history = trainer.fit(loader(), val_tasks=Doubling(loader()))
    assert history["val"]["double"] == [1.0, 1.0, 1.0]


def test_overfit_goes_on_after_a_stop_within_an_epoch() -> None:
    class Stops(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            if trainer.progress.num_train_batches == 3:
                trainer.stop("a look at it", validate=True)

    data, trainer = loader(), make_trainer(overfit_batches=2, callbacks=Stops())
    assert trainer.fit(data, data).partial == {1: 0.5}
    trainer.fit(data, data)
    whole = make_trainer(overfit_batches=2).fit(loader(), loader())
    assert trainer.history == whole


def test_a_limited_pass_resumes_in_its_middle_to_the_bit(tmp_path: Any) -> None:
    def run(stop_at: int | None) -> Any:
        class Stops(Callback):
            def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
                if trainer.progress.num_train_batches == stop_at:
                    raise KeyboardInterrupt

        torch.manual_seed(3)
        check = CheckCallback("loss", ckpt_dir=tmp_path / str(bool(stop_at)), every_n_batches=1)
        trainer = make_trainer(
            limit_train_batches=4, limit_val_batches=2, callbacks=[check, Stops()],
            running_id="run", resume="auto", on_interrupt="return",
        )  # fmt: skip
        trainer.fit(loader(generator=None), loader(generator=None))
        weights = [weight.tolist() for weight in trainer.model.parameters()]
        return dict(trainer.history), weights, torch.rand(1).item()

    unbroken = run(None)
    run(6)
    torch.manual_seed(99)
    (tmp_path / "False").rename(tmp_path / "whole")
    (tmp_path / "True").rename(tmp_path / "False")
    assert run(None) == unbroken


def test_another_limit_at_a_resume_is_said() -> None:
    trainer = make_trainer(limit_train_batches=3, epochs=1)
    trainer.fit(loader())
    other = make_trainer(limit_train_batches=4, epochs=2)
    other.load_state_dict(trainer.state_dict())
    with pytest.warns(UserWarning, match=r"limit_train_batches is 4 \(3 in the checkpoint\)"):
        other.fit(loader())


# --- how many epochs steps take


@pytest.mark.parametrize("data", [Endless, lambda: DataLoader(Stream(), 4)])
def test_where_steps_end_a_fit_and_nobody_knows_its_epochs_there_is_no_total(
    data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_steps": 23, "epochs": 1000, "console": "bar", "show_info": False}
    trainer = make_trainer(**options)
    trainer.fit(data())
    shown = capsys.readouterr().out
    assert "/1000" not in shown and "of 1000" not in shown
    number = trainer.init_epoch  # whole ones
    assert f"\n{number} epoch{'' if number == 1 else 's'} in " in shown.replace("\r", "\n")
    assert trainer.known_epochs is None
    assert f", {number} epochs\n" in repr(trainer)


def test_where_the_epochs_are_known_they_are_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(max_steps=23, epochs=1000, console="rows", show_info=False).fit(loader())
    assert "  3/3 " in capsys.readouterr().out
    make_trainer(max_steps=23, epochs=5, console="rows", show_info=False).fit(Endless())
    assert "  1/5 " in capsys.readouterr().out


def test_a_record_has_no_total_that_nobody_expects(tmp_path: Any) -> None:
    trainer = make_trainer(
        max_steps=3, epochs=1000, callbacks=RunRecordCallback(tmp_path), running_id="a"
    )
    trainer.fit(Endless())
    run = read_run(tmp_path / "a")
    assert run.record["max_epochs"] is None
    assert run.outcome == "stopped"
    assert "1000" not in run_page(run)


# --- the mini-batches that overfit_batches reads


class Fresh:
    """Makes each mini-batch anew, and knows which of them are still alive."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        for at in range(0, 40, 4):
            batch = X[at : at + 4].clone(), Y[at : at + 4]
            self.made.append(weakref.ref(batch[0]))
            yield batch

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(each() is not None for each in self.made)


@pytest.mark.parametrize("look", ["explain", "check"])
def test_to_look_at_a_fit_keeps_no_mini_batch_of_it(look: str) -> None:
    trainer, data = make_trainer(overfit_batches=2), Fresh()
    getattr(trainer, look)(data, data)
    assert data.made and data.alive == 0


def test_mini_batches_are_kept_no_longer_than_the_loaders_of_the_latest_fit() -> None:
    trainer, first = make_trainer(overfit_batches=2, epochs=1), Fresh()
    trainer.fit(first)
    trainer.fit(Fresh(), epochs=1)
    assert first.made and first.alive == 0
