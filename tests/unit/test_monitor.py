"""A Monitor knows the best value and how long ago it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepepochs.errors import CheckpointMismatch, ConfigError
from deepepochs.optim.monitor import Monitor

NAN = float("nan")


@pytest.mark.parametrize(
    ("mode", "values", "better"),
    [
        ("min", [3, 2, 2, 1], [True, True, False, True]),
        ("max", [1, 2, 2, 3], [True, True, False, True]),
        ("min", [NAN, 2, NAN, 1], [False, True, False, True]),
        ("max", [-math.inf, -math.inf, 0], [True, False, True]),
        ("min", [math.inf, 1, NAN], [True, True, False]),
    ],
)
def test_a_value_is_better_if_it_strictly_beats_all_before_it(
    mode: str, values: list[float], better: list[bool]
) -> None:
    monitor = Monitor(mode)
    assert [monitor.update(value) for value in values] == better


@pytest.mark.parametrize(("mode", "sign"), [("min", -1), ("max", 1)])
def test_a_value_must_beat_the_best_by_more_than_min_delta(mode: str, sign: int) -> None:
    monitor = Monitor(mode, min_delta=0.5)
    values = [0.0, sign * 0.25, sign * 0.5, sign * 0.75]
    assert [monitor.update(v) for v in values] == [True, False, False, True]
    assert monitor.best == sign * 0.75


def test_small_steps_add_up_to_a_better_value_under_min_delta() -> None:
    monitor = Monitor("max", min_delta=1)
    assert [monitor.update(v) for v in (0, 0.75, 1.5)] == [True, False, True]


def test_patience_runs_out_after_that_many_values_in_a_row_and_a_better_one_resets_it() -> None:
    monitor = Monitor(patience=2)
    seen = []
    for value in (5, 6, 4, 5, NAN, 3):
        monitor.update(value)
        seen.append((monitor.num_bad, monitor.exhausted))
    assert seen == [(0, False), (1, False), (0, False), (1, False), (2, True), (0, False)]


def test_without_patience_it_is_never_exhausted() -> None:
    monitor = Monitor()
    for _ in range(50):
        monitor.update(1)
    assert monitor.num_bad == 49 and not monitor.exhausted


def test_values_that_are_all_nan_use_up_the_patience() -> None:
    monitor = Monitor(patience=2)
    assert not monitor.update(NAN) and not monitor.update(NAN)
    assert monitor.exhausted and monitor.best is None and monitor.best_step is None


def test_the_step_of_the_best_counts_from_0() -> None:
    monitor = Monitor("max")
    for value in (1, 3, 2):
        monitor.update(value)
    assert (monitor.best, monitor.best_step, monitor.num_steps) == (3, 1, 3)


def test_arrays_and_tensors_become_plain_numbers() -> None:
    monitor = Monitor()
    monitor.update(np.array(0.5))
    monitor.update(torch.tensor(0.25))
    assert type(monitor.best) is float and monitor.best == 0.25


@given(
    st.sampled_from(["min", "max"]),
    st.lists(st.floats(-9, 9) | st.just(NAN), max_size=8),
    st.lists(st.floats(-9, 9) | st.just(NAN), max_size=8),
)
def test_going_on_from_a_saved_state_equals_never_stopping(
    mode: str, before: list[float], after: list[float]
) -> None:
    one, other = Monitor(mode, patience=3), Monitor(mode, patience=3)
    for value in before:
        one.update(value)
    other.load_state_dict(one.state_dict())
    assert [one.update(v) for v in after] == [other.update(v) for v in after]
    assert one.state_dict() == other.state_dict() and one.exhausted == other.exhausted


def test_the_best_is_the_best_of_all_values() -> None:
    values = [random_value / 7 for random_value in (3, 9, 2, 2, 8)]
    low, high = Monitor("min"), Monitor("max")
    for value in values:
        low.update(value)
        high.update(value)
    assert (low.best, high.best) == (min(values), max(values))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "best"}, "mode='best'"),
        ({"patience": -1}, "patience=-1"),
        ({"min_delta": -0.1}, "min_delta=-0.1"),
        ({"min_delta": NAN}, "min_delta=nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Monitor(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "max"}, "mode='max'"),
        ({"extra": 1}, "extra"),
        ({"num_bad": -1}, "num_bad=-1"),
        ({"num_steps": "3"}, "num_steps='3'"),
        ({"best": "low"}, "best='low'"),
        ({"best_step": 0.5}, r"best_step=0\.5"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(
    change: dict[str, Any], message: str
) -> None:
    monitor = Monitor()
    monitor.update(1)
    before = monitor.state_dict()
    with pytest.raises(CheckpointMismatch, match=message):
        monitor.load_state_dict({**Monitor().state_dict(), **change})
    assert monitor.state_dict() == before


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="list"):
        Monitor().load_state_dict([])  # type: ignore[arg-type]
