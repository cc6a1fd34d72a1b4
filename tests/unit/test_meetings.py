"""When several processes agree on stops and saves, and what their mini-batches weigh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.utils.data import BatchSampler, SequentialSampler

from deepepochs.runtime import rounds
from deepepochs.runtime.rounds import FIRST_ROUNDS, Meetings, Sizes
from deepepochs.runtime.shares import share_of_sizes


def met(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Iterator[float],
    num_rounds: int,
    meetings: Meetings | None = None,
) -> list[int]:
    """The rounds of a pass, from 1, after which processes meet, with rounds of so many seconds."""
    now = [next(seconds)]
    monkeypatch.setattr(rounds, "monotonic", lambda: now[0])
    meetings = meetings or Meetings()
    meetings.begin(meetings.pace())
    found = []
    for number in range(1, num_rounds + 1):
        if meetings.is_due():
            found.append(number)
            meetings.plan(meetings.pace() or 0.0)
        now[0] += next(seconds)
    return found


def forever(value: float) -> Iterator[float]:
    while True:
        yield value


def test_fast_rounds_have_few_meetings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = met(monkeypatch, forever(0.001), 1000)
    assert found[:FIRST_ROUNDS] == [1, 2, 3, 4]
    assert len(found) <= FIRST_ROUNDS + 5
    assert found[-1] - found[-2] == pytest.approx(250, abs=1)


def test_the_next_pass_begins_at_the_pace_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meetings = Meetings()
    met(monkeypatch, forever(0.001), 10, meetings)
    assert met(monkeypatch, forever(0.001), 100, meetings) == []
    assert met(monkeypatch, forever(0.001), 1000, meetings) == pytest.approx(
        [250, 500, 750, 1000], abs=4
    )


def test_slow_rounds_each_have_one_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    meetings = Meetings()
    for _ in range(3):
        assert met(monkeypatch, forever(0.3), 20, meetings) == list(range(1, 21))


def test_rounds_that_become_slow_have_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds() -> Iterator[float]:
        yield from [0.001] * 100
        yield from forever(0.5)

    meetings = Meetings()
    assert met(monkeypatch, seconds(), 600, meetings)[-50:] == list(range(551, 601))
    assert met(monkeypatch, forever(0.5), 50, meetings) == list(range(1, 51))


def test_a_pass_that_was_too_short_for_a_meeting_says_how_fast_the_next_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meetings = Meetings()
    met(monkeypatch, forever(0.001), 100, meetings)
    assert met(monkeypatch, forever(2.0), 100, meetings) == []
    assert met(monkeypatch, forever(2.0), 100, meetings) == list(range(1, 101))
    assert met(monkeypatch, forever(0.001), 100, meetings)[:5] == [1, 2, 3, 4]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [0, 1, 15, 16, 17, 64, 70, 95])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_sizes_are_those_of_the_batches_in_turn(
    num_samples: int, num_processes: int, drop_last: bool
) -> None:
    batches = list(BatchSampler(SequentialSampler(range(num_samples)), 16, drop_last))
    for rank in range(num_processes):
        own = [len(batch) for batch in batches[rank::num_processes]]
        sizes = share_of_sizes(num_samples, 16, num_processes, rank, drop_last=drop_last)
        assert [sizes.at(index) for index in range(len(own) + 2)] == [*own, 0, 0]


def test_beyond_the_last_mini_batch_nothing_weighs() -> None:
    assert [Sizes(2.5, 2).at(index) for index in range(4)] == [2.5, 2.5, 0, 0]
