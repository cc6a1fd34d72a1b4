"""Processes that go on from any save point are the fit that was never broken off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import results

CASES = ["shuffled", "accumulating", "by_hand", "streams", "drawn", "prepared", "recorded"]
CASES_OF_THREE = ["layered", "layered_windows"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("resuming")
    of_three = results("resuming.py", 3, folder, *CASES_OF_THREE)
    return {**results("resuming.py", 2, folder, *CASES), **of_three}


@pytest.mark.parametrize("case", [*CASES, *CASES_OF_THREE])
def test_a_resume_at_any_save_point_is_exact_in_every_process(
    found: dict[str, Any], case: str
) -> None:
    assert len(found[case]["tried"]) >= 4
    assert found[case]["differing"] == []


@pytest.mark.parametrize("case", [*CASES, *CASES_OF_THREE])
def test_one_more_random_draw_is_seen(found: dict[str, Any], case: str) -> None:
    assert found[case]["control differs"] is True
