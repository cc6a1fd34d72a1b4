"""A training that is killed at any moment goes on as the one that was not, to the bit."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from killable import Forked, read_result, same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

NUM_KILLS = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of the run that is not killed."""
    folder = tmp_path_factory.mktemp("whole")
    process = Forked(folder)
    assert process.wait() == 0, process.errors
    return read_result(folder)


@pytest.mark.parametrize("options", [(), ("--background",)], ids=["at once", "background"])
def test_killed_at_random_moments_the_run_goes_on_as_the_one_that_was_not(
    options: tuple[str, ...], whole: Any, tmp_path: Path
) -> None:
    chance = random.Random(5)
    kills = 0
    for round_ in range(50):
        folder = tmp_path / str(round_)
        while not (folder / "run.result.pt").exists():
            process = Forked(folder, "--every=2", "--progress", *options)
            # By what it has done, not by the clock: so the moments do not hang on the machine.
            patience = chance.randrange(1, 40)
            for count, _ in enumerate(process.stdout):
                if count >= patience and kills < NUM_KILLS:
                    time.sleep(chance.random() * 0.004)
                    os.kill(process.pid, signal.SIGKILL)
                    break
            code = process.wait()
            kills += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), process.errors
        assert same(read_result(folder), whole), f"after {kills} kills"
        if kills >= NUM_KILLS:
            break
    assert kills == NUM_KILLS


LIMITS = '{"max_steps": 17, "val_every": 4, "limit_train_batches": 7, "limit_val_batches": 0.5}'


def test_a_limited_run_that_is_killed_goes_on_as_the_one_that_was_not(tmp_path: Path) -> None:
    options = f"--limits={LIMITS}", "--epochs=1000", "--every=2", "--progress"
    whole, killed, chance, kills = tmp_path / "whole", tmp_path / "killed", random.Random(6), 0
    process = Forked(whole, *options)
    assert process.wait() == 0, process.errors
    while not (killed / "run.result.pt").exists():
        process = Forked(killed, *options)
        patience = chance.randrange(3, 12)
        for count, _ in enumerate(process.stdout):
            if count >= patience and kills < 5:
                os.kill(process.pid, signal.SIGKILL)
                break
        kills += process.wait() == -signal.SIGKILL
    assert kills == 5
    assert same(read_result(killed), read_result(whole))


def test_another_seed_gives_another_result(whole: Any, tmp_path: Path) -> None:
    process = Forked(tmp_path, "--seed=1")
    assert process.wait() == 0, process.errors
    assert not same(read_result(tmp_path), whole)
