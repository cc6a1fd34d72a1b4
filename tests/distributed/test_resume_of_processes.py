"""Two processes that go on from any save point are the fit that was never broken off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import results

CASES = ["shuffled", "accumulating", "by_hand", "streams", "drawn", "prepared", "recorded"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results("resuming.py", 2, tmp_path_factory.mktemp("resuming"))


@pytest.mark.parametrize("case", CASES)
def test_a_resume_at_any_save_point_is_exact_in_every_process(
    found: dict[str, Any], case: str
) -> None:
    assert len(found[case]["tried"]) >= 4
    assert found[case]["differing"] == []


@pytest.mark.parametrize("case", CASES)
def test_one_more_random_draw_is_seen(found: dict[str, Any], case: str) -> None:
    assert found[case]["control differs"] is True
