"""set_epoch of samplers, batch samplers and data sets is called with the number of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    Subset,
)

from deepepochs import Callback, Trainer

NUM = 12


class Rows(Dataset[Any]):
    """Rows that say which they are, and which epoch they have been told of."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([float(index), float(self.told[-1] if self.told else -1)]), 0


class ToldRows(Rows):
    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)


class ToldStream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.turn = -1

    def set_epoch(self, epoch: int) -> None:
        self.turn = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        yield from ((torch.tensor([float(i), float(self.turn)]), 0) for i in range(NUM))


class Told(Sampler[int]):
    """Its order depends on the epoch."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)

    def __len__(self) -> int:
        return NUM

    def __iter__(self) -> Iterator[int]:
        seeded = torch.Generator().manual_seed(self.told[-1] if self.told else 99)
        return iter(torch.randperm(NUM, generator=seeded).tolist())


class ToldBatches(Told):
    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        yield from torch.tensor(list(super().__iter__())).view(4, 3).tolist()


class Around(Sampler[int]):
    def __init__(self, inner: Told) -> None:
        self.members = {"inner": inner}

    def __len__(self) -> int:
        return NUM

    def __iter__(self) -> Iterator[int]:
        return iter(self.members["inner"])


def prepared(loader: DataLoader[Any]) -> Any:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(loader)


def stateful(**options: Any) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(Rows(), 3, **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "sampler": lambda: DataLoader(Rows(), 3, sampler=Told()),
    "sampler of torch": lambda: DataLoader(
        Rows(), 3, sampler=DistributedSampler(Rows(), num_replicas=1, rank=0)
    ),
    "sampler in a batch sampler": lambda: DataLoader(
        Rows(), batch_sampler=BatchSampler(Told(), 3, False)
    ),
    "sampler in a sampler": lambda: DataLoader(Rows(), 3, sampler=Around(Told())),
    "batch sampler": lambda: DataLoader(Rows(), batch_sampler=ToldBatches()),
    "data set": lambda: DataLoader(ToldRows(), 3),
    "data set in a subset": lambda: DataLoader(Subset(ToldRows(), range(6)), 3),
    "data sets together": lambda: DataLoader(ConcatDataset([ToldRows(), ToldRows()]), 3),
    "stream": lambda: DataLoader(ToldStream(), 3),
    "stream in workers": lambda: DataLoader(ToldStream(), 3, num_workers=1),
    "prepared by Accelerate": lambda: prepared(DataLoader(Rows(), 3, sampler=Told())),
    "torchdata": lambda: stateful(sampler=Told()),
}


class See(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, list[Any]] = {}

    def on_before_train_batch(self, trainer: Any, batch_x: Any, **others: Any) -> None:
        self.rows.setdefault(trainer.progress.epoch_idx, []).extend(batch_x[0].tolist())


def make_trainer(*callbacks: Callback, epochs: int = 3) -> Trainer:
    model = nn.Linear(2, 2)
    opt = torch.optim.SGD(model.parameters(), 0.0)
    return Trainer(model, F.cross_entropy, opt, epochs, callbacks=[*callbacks], show_info=False)


@pytest.mark.filterwarnings("ignore:.*set_vital.*", "ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("kind", LOADERS)
def test_every_epoch_is_told_and_so_is_another_one(kind: str) -> None:
    see = See()
    make_trainer(see).fit(LOADERS[kind]())
    assert len(see.rows) == 3
    assert len({str(rows) for rows in see.rows.values()}) == 3


def test_without_set_epoch_all_epochs_are_the_same() -> None:
    class Untold(Told):
        set_epoch = None  # type: ignore[assignment]

    see = See()
    make_trainer(see).fit(DataLoader(Rows(), 3, sampler=Untold()))
    assert len({str(rows) for rows in see.rows.values()}) == 1


def test_training_and_validation_are_told_the_number_of_the_run_from_0() -> None:
    train, val = Told(), Told()
    trainer = make_trainer(epochs=2)
    loaders = DataLoader(Rows(), 3, sampler=train), DataLoader(Rows(), 3, sampler=val)
    trainer.fit(*loaders)
    trainer.fit(*loaders, epochs=1)
    assert train.told == val.told == [0, 1, 2]


def test_a_test_and_a_prediction_are_not_told() -> None:
    sampler = Told()
    trainer = make_trainer()
    trainer.test(DataLoader(Rows(), 3, sampler=sampler))
    trainer.predict(DataLoader(Rows(), 3, sampler=sampler))
    assert not sampler.told


def test_a_number_that_a_script_gives_in_a_hook_is_the_one_that_counts() -> None:
    class Later(Callback):
        def on_before_epoch(self, epoch_idx: int, **others: Any) -> None:
            sampler.set_epoch(epoch_idx + 100)

    sampler = Told()
    make_trainer(Later(), epochs=2).fit(DataLoader(Rows(), 3, sampler=sampler))
    assert sampler.told == [0, 100, 1, 101]


def test_a_resumed_epoch_is_told_again() -> None:
    class StopAt(Callback):
        def on_after_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
            if trainer.progress.epoch_idx == 1 and batch_idx == 1 and self.stops:
                states.append(trainer.state_dict())
                trainer.stop("here")

        stops = True

    states: list[Any] = []
    whole, again = See(), See()
    make_trainer(whole).fit(DataLoader(Rows(), 3, sampler=Told()))
    make_trainer(StopAt()).fit(DataLoader(Rows(), 3, sampler=Told()))
    trainer = make_trainer(again)
    trainer.load_state_dict(states[0])
    trainer.fit(DataLoader(Rows(), 3, sampler=Told()))
    assert again.rows == {1: whole.rows[1][6:], 2: whole.rows[2]}


class NeedsTelling(ToldRows):
    """Its samples cannot be read before it is told of an epoch."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([float(index), float(self.told[-1])]), index % 2


class NeedsTellingStream(IterableDataset[Any]):
    """The same for a stream."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.tensor([float(i), float(self.told[-1])]), 0) for i in range(NUM)])


class OrderOfEpoch(Told):
    """Has no order before it is told of an epoch."""

    def __iter__(self) -> Iterator[int]:
        assert self.told
        return super().__iter__()


NEEDING: dict[str, Callable[[], DataLoader[Any]]] = {
    "samples": lambda: DataLoader(NeedsTelling(), 4, shuffle=True),
    "stream": lambda: DataLoader(NeedsTellingStream(), 4),
    "order": lambda: DataLoader(Rows(), 4, sampler=OrderOfEpoch()),
}
TRIES: dict[str, Callable[[Trainer, Any], Any]] = {
    "check": lambda trainer, loader: trainer.check(loader),
    "plain_loop": lambda trainer, loader: trainer.plain_loop(None, loader),
    "summary": lambda trainer, loader: trainer.summary(loader),
    "find_lr": lambda trainer, loader: trainer.find_lr(loader, max_batch=3),
    "profile": lambda trainer, loader: trainer.profile(loader, steps=2),
    "find_batch_size": lambda trainer, loader: trainer.find_batch_size(loader),
    "export": lambda trainer, loader: trainer.export("model.pt2", data=loader),
}


@pytest.mark.parametrize("kind", NEEDING)
@pytest.mark.parametrize("name", TRIES)
def test_what_reads_data_before_a_fit_tells_the_epoch_that_the_fit_begins_with(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def losses(do: Callable[[Trainer, Any], Any] | None) -> Any:
        torch.manual_seed(0)
        trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=2, console="off", device="cpu")
        loader = NEEDING[kind]()
        found = None if do is None else do(trainer, loader)
        if name == "check" and found:
            assert not [one for one in found if "fail" in one.text or "read" in one.text], found
        torch.manual_seed(1)
        return trainer.fit(loader)["train"]["loss"]

    assert losses(TRIES[name]) == losses(None)


@pytest.mark.parametrize("kind", NEEDING)
def test_mini_batches_that_are_overfitted_are_those_of_the_first_epoch(kind: str) -> None:
    loader = NEEDING[kind]()
    options: dict[str, Any] = {"epochs": 2, "console": "off", "device": "cpu"}
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, overfit_batches=2, **options)
    assert len(trainer.fit(loader)["train"]["loss"]) == 2


class TellsAll(Rows):
    """Notes the epochs that it is told outside of itself, where no try puts them back."""

    def __init__(self, told: list[int]) -> None:
        super().__init__()
        self.note = told.append

    def set_epoch(self, epoch: int) -> None:
        self.note(epoch)


@pytest.mark.parametrize("name", TRIES)
def test_what_reads_data_between_two_fits_tells_the_epoch_of_the_next_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=2, console="off", device="cpu")
    trainer.fit(DataLoader(Rows(), 4))
    told: list[int] = []
    TRIES[name](trainer, DataLoader(TellsAll(told), 4))
    assert set(told) == {2}
