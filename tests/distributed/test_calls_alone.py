"""What all processes must call, and one calls alone, ends in an error that names both places."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import WARM, Ended, launch

AT_ONCE = {
    "tests": ("process 0 is in test() inside of fit() (call 1), where it begins a pass",
              "process 1 is in fit() (call 1), where it may save or stop"),
    "predicts": ("process 0 is in predict() inside of fit() (call 1)",
                 "process 1 is in fit() (call 1), where it may save or stop"),
    "saves": ("process 0 is in fit() (call 1), where it saves its state",
              "process 1 is in fit() (call 1), where it may save or stop"),
    "searches": ("process 0 is in find_lr() (call 1)", "process 1 is in fit() (call 1)"),
    "loads": ("process 0 is in the script, where it is ready to load the weights",
              "process 1 is in fit() (call 1)"),
    "makes": ("Process 0 makes a Trainer, and has lost the connection to another process",),
    "late": ("Process 0 has waited for another process for 2 seconds, the timeout of the process group",),
    "dies": ("Process 0 has lost the connection to another process", "is in fit() (call 1)"),
    "fits": ("Process 0 waits for process 1, which has ended its script",),
    "exits": ("process 1, which has left fit() (call 1) with SystemExit(0)",),
    "caught": ("process 1, which has left fit() (call 1) with ValueError('the fault of the test')",),
}  # fmt: skip
# These processes all wait, which is seen when it has lasted for a while.
IN_THE_END = {
    "barrier": ("process 0 waits in torch.distributed.barrier(), called in ", "alone.py, line "),
    "in a step": (
        "deepepochs: The processes wait for one another",
        "process 0 waits in torch.distributed.barrier(), called in ",
        "process 1 waits in the backward pass",
    ),
    "unused": ("waits in the backward pass", "find_unused_parameters=True"),
}


@pytest.fixture(scope="module")
def ended() -> dict[str, Ended]:
    """The launches, side by side: most of their time is a wait."""
    for server in WARM:
        assert server.address
    kinds = [*IN_THE_END, "slow", *AT_ONCE, "all unused", "refused"]
    with ThreadPoolExecutor(4) as pool:
        return dict(
            zip(kinds, pool.map(lambda kind: launch("alone.py", 2, kind), kinds), strict=True)
        )


@pytest.mark.parametrize("kind", [*AT_ONCE, *IN_THE_END])
def test_a_call_of_one_process_ends_in_an_error_that_says_where_each_is(
    ended: dict[str, Ended], kind: str
) -> None:
    assert ended[kind].code == 1, ended[kind].err
    assert "LoopException: " in ended[kind].err or kind == "in a step"
    for part in {**AT_ONCE, **IN_THE_END}[kind]:
        assert part in ended[kind].err


def test_a_process_that_is_only_slow_is_waited_for(ended: dict[str, Ended]) -> None:
    """For longer than it takes to see that all wait: the control of the test above."""
    assert ended["slow"].code == 0, ended["slow"].err
    assert ended["slow"].out.count("finished in process") == 2


def test_weights_that_no_process_uses_get_a_hint(ended: dict[str, Ended]) -> None:
    assert ended["all unused"].code == 1
    assert "Expected to have finished reduction" in ended["all unused"].err
    assert "DistributedDataParallelKwargs(find_unused_parameters=True)" in ended["all unused"].err


def test_a_resume_that_one_process_refuses_is_refused_in_all_and_can_be_tried_again(
    ended: dict[str, Ended],
) -> None:
    assert ended["refused"].code == 0, ended["refused"].err
    assert ended["refused"].out.count("refused: ") == 2
    assert "refused: Process 1 cannot begin the fit: " in ended["refused"].out
    assert ended["refused"].out.count("finished in process") == 2
