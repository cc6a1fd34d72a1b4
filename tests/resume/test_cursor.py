"""A pass broken off after any batch and gone on with elsewhere is the pass that was not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cursor_kinds import KINDS, resume, walk

NUM_PASSES = 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_resumed_after_any_batch_or_pass_goes_on_as_if_unbroken(kind: str) -> None:
    make = KINDS[kind]
    whole, _, _ = walk(make, NUM_PASSES)
    for at in range(1, len(whole) + 1):
        before, state, number = walk(make, NUM_PASSES, at)
        assert before == whole[:at]
        assert resume(make, state, number, NUM_PASSES) == whole[at:], f"{kind}, after {at}"
