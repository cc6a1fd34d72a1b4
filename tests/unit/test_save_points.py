"""SavePoints, made alone: who saves and who stops at the next one."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from torch import nn

from deepepochs import Trainer
from deepepochs.errors import StopLoopException
from deepepochs.fit.save_points import SavePoints


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(nn.Linear(1, 1), show_info=False)


def test_a_save_that_was_asked_for_is_made_once_at_the_next_save_point(trainer: Trainer) -> None:
    points, saved = SavePoints(trainer, saves=True), list[Any]()
    points.request(saved.append)
    points.request(saved.append)
    assert not saved
    points.check()
    points.check()
    assert saved == [trainer]


def test_a_stop_ends_the_call_at_the_next_save_point_after_its_savers(trainer: Trainer) -> None:
    points, saved = SavePoints(trainer, saves=True), list[Any]()
    points.add_saver(saved.append)
    points.check()
    assert not saved
    points.stop("enough")
    with pytest.raises(StopLoopException, match="enough"):
        points.check()
    assert saved == [trainer]


def test_a_call_that_is_no_fit_saves_nothing(trainer: Trainer) -> None:
    points, saved = SavePoints(trainer), list[Any]()
    points.request(saved.append)
    points.check()
    assert not saved


def test_a_save_waits_for_the_outer_call_and_a_stop_ends_both(trainer: Trainer) -> None:
    outer, saved = SavePoints(trainer, saves=True), list[Any]()
    inner = SavePoints(trainer, outer=outer)
    assert inner.outermost is outer
    outer.request(saved.append)
    inner.check()
    assert not saved
    inner.stop("")
    with pytest.raises(StopLoopException, match="stopped"):
        inner.check()
    outer.inherit(inner)
    with pytest.raises(StopLoopException, match="stopped"):
        outer.check()
    assert saved == [trainer]


def test_a_signal_stops_the_call_by_name_and_the_handlers_are_put_back(trainer: Trainer) -> None:
    points, before = SavePoints(trainer), signal.getsignal(signal.SIGINT)
    with points.signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(StopLoopException, match="SIGINT received"):
            points.check()
    assert signal.getsignal(signal.SIGINT) is before
