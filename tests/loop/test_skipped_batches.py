"""A collate function that gives None leaves out a mini-batch, as if it was not in the data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import Callback, EpochTask, Optimizer, Trainer
from deepepochs.errors import DataError

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
Y = X[:, :3].argmax(1)
BAD = {0, 1, 2, 9, 10, 11, 27, 28, 29}  # of mini-batches of three the first, the fourth, the last


def collate(rows: list[int]) -> Any:
    good = [row for row in rows if row not in BAD]
    return (X[good], Y[good]) if good else None


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(range(30), **{"batch_size": 3, "collate_fn": collate, **options})  # type: ignore[arg-type]


def good_batches() -> list[Any]:
    return [(X[i : i + 3], Y[i : i + 3]) for i in range(0, 30, 3) if i not in BAD]


def made(**options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    opt = options.pop("opt", None) or (lambda weights: torch.optim.Adam(weights, lr=0.05))
    options = {"epochs": 2, "metrics": "accuracy", "console": "off", **options}
    return Trainer(model, F.cross_entropy, opt(model.parameters()), **options)


def fitted(*loaders: Any, **options: Any) -> tuple[Any, Any, int]:
    trainer = made(**options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The training loader gave None", UserWarning)
        history = trainer.fit(*loaders)
    return dict(history), trainer.model.state_dict(), trainer.progress.num_steps


def assert_same(one: tuple[Any, Any, int], other: tuple[Any, Any, int]) -> None:
    assert one[0] == other[0] and one[2] == other[2]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize(
    ("accumulate", "workers"), [(1, 0), (2, 0), (3, 0), (4, 0), (1, 2), (3, 2)]
)
def test_it_trains_as_on_the_other_mini_batches_alone(accumulate: int, workers: int) -> None:
    data = loader(num_workers=workers)
    expected = fitted(good_batches(), good_batches(), grad_accumulate=accumulate)
    assert_same(fitted(data, data, grad_accumulate=accumulate), expected)


def every_third_is_none() -> list[Any]:
    return [None if index % 3 == 1 else batch for index, batch in enumerate(good_batches())]


class Counted:
    """A loader of the user's own."""

    def __iter__(self) -> Iterator[Any]:
        return iter(every_third_is_none())


@pytest.mark.parametrize("make", [every_third_is_none, Counted])
def test_a_none_of_any_loader_is_left_out(make: Callable[[], Any]) -> None:
    expected = fitted([batch for batch in every_third_is_none() if batch is not None])
    assert_same(fitted(make()), expected)


def test_it_is_said_once_with_the_number() -> None:
    trainer = made()
    with pytest.warns(UserWarning, match="training loader gave None in place of 3 of 10") as told:
        trainer.fit(loader(), loader())
    assert len(told) == 1


def test_a_schedule_that_follows_a_metric_does_not_look_at_what_is_left_out() -> None:
    def opt(weights: Any) -> Optimizer:
        of_torch = torch.optim.SGD(weights, lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(of_torch, mode="max")
        return Optimizer(of_torch, plateau, monitor="accuracy")

    assert_same(fitted(loader(), opt=opt), fitted(good_batches(), opt=opt))


def test_a_loader_that_gives_none_alone_is_an_error() -> None:
    def nothing(rows: list[int]) -> None:
        return None

    with pytest.raises(DataError, match="None each"):
        made().fit(loader(collate_fn=nothing))


def test_hooks_are_not_called_for_it_and_the_progress_counts_it() -> None:
    seen: list[int] = []

    class Looks(Callback):
        def on_before_train_batch(self, batch_idx: int, **_: Any) -> None:
            seen.append(batch_idx)

    trainer = made(callbacks=Looks(), epochs=1)
    with pytest.warns(UserWarning, match="None"):
        trainer.fit(loader())
    assert seen == [1, 2, 4, 5, 6, 7, 8]
    assert trainer.progress.num_train_batches == 10


def test_predictions_and_tests_leave_it_out() -> None:
    trainer = made()
    with pytest.warns(UserWarning, match=r"loader of predict\(\) gave None in place of 3 of 10"):
        outputs = trainer.predict(loader())
    assert torch.equal(outputs, trainer.predict(good_batches()))
    assert trainer.test(loader()) == trainer.test(good_batches())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_fit_resumes_after_any_mini_batch(accumulate: int) -> None:
    states: list[Any] = []

    class Saves(Callback):
        def on_after_train_batch(self, trainer: Any, **_: Any) -> None:
            trainer.request_save(lambda t: states.append(copy.deepcopy(t.state_dict())))

    def shuffled() -> Any:
        return loader(batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(4))

    whole = fitted(shuffled(), callbacks=Saves(), grad_accumulate=accumulate)
    assert len(states) > 15
    for state in states:
        trainer = made(grad_accumulate=accumulate)
        trainer.load_state_dict(state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The training loader gave None", UserWarning)
            trainer.fit(shuffled())
        assert_same(
            (dict(trainer.history), trainer.model.state_dict(), trainer.progress.num_steps), whole
        )


def test_a_task_of_ones_own_never_sees_it() -> None:
    class Own(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
            assert len(batch_y)
            self.loss(self.call_model(batch_x), batch_y)

    with pytest.warns(UserWarning, match="None"):
        made().fit(train_tasks=Own(loader()))
