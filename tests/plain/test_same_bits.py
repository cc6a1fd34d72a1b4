"""The script of `plain_loop` trains to the weights and the metrics of `fit`, to the bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from cases import CASES, COMBINED, HEAD, MODULE, Pair, check_style

from deepepochs.cli.main import main


def values_by_epoch(history: list[tuple[Any, ...]], stage: int) -> dict[str, list[Any]]:
    epochs = [entry[stage] for entry in history if len(entry) > stage and entry[stage]]
    names = {name for one in epochs for name in one}
    return {name: [one[name] for one in epochs if name in one] for name in names}


def merged(
    within: list[tuple[int, dict[str, Any]]], history: list[tuple[Any, ...]], steps: list[int]
) -> dict[str, list[Any]]:
    """The values of all validations in order, those within an epoch and those at its end."""
    between = dict(within)
    assert between.keys() <= set(steps)
    ends = iter([entry[1] for entry in history if entry[1]])
    every = [(between.pop(step) if step in between else next(ends),) for step in steps]
    assert not between and next(ends, None) is None
    return values_by_epoch(every, 0)


@pytest.mark.parametrize("case", [*CASES, *COMBINED])
def test_script_trains_to_the_same_bits(run_both: Callable[[str], Pair], case: str) -> None:
    pair = run_both(HEAD + {**CASES, **COMBINED}[case])

    theirs = pair.model.state_dict()
    if "ema_model" in pair.theirs:
        theirs = pair.theirs["ema_model"].module.state_dict()
        trained = pair.model.state_dict()  # torch averages numbers of mini-batches, too
        theirs.update((n, v) for n, v in trained.items() if n.endswith("num_batches_tracked"))
    for name, value in pair.ours["trainer"].model.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    history = next(v for k, v in pair.theirs.items() if k in ("history_2", "history") if v != 1)
    steps = pair.ours["trainer"].history.steps["val"]
    for index, stage in enumerate(("train", "val")):
        found = values_by_epoch(history, index)
        if stage == "val" and "validations" in pair.theirs:
            found = merged(pair.theirs["validations"], history, steps)
        for name, values in pair.ours["trainer"].history.get(stage, {}).items():
            if case == "several_tasks" and name == "accuracy":
                continue  # of all tasks together: a comment stands for it
            np.testing.assert_array_equal(np.array(found.pop(name)), np.array(values), name)
        assert not found
    assert "deepepochs" not in pair.text.partition('"""\n')[2]
    check_style(Path("loop.py"))


def test_scripts_pass_a_type_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steps_of_mine.py").write_text(MODULE, encoding="utf-8")
    for case, body in CASES.items():
        Path("train.py").write_text(HEAD + body, encoding="utf-8")
        main(["show-loop", "-o", f"loop_{case}.py", "train.py"])
        AcceleratorState._reset_state(True)  # of one precision for all Accelerators

    scripts = sorted(map(str, tmp_path.glob("loop_*.py")))
    assert len(scripts) == len(CASES)
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=skip"]
    command += ["--ignore-missing-imports", *scripts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


STREAM = """
class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(x[i], y[i]) for i in range(20)])


stream_dl = DataLoader(Stream(), batch_size=5)
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.5)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.7)
trainer = Trainer(
    model,
    F.cross_entropy,
    Optimizer(opt, scheduler),
    epochs=3,
    val_every=2,
    callbacks=CheckCallback(),
    console="off",
)
trainer.fit(stream_dl, val_dl)
"""


def test_the_last_step_of_a_stream_counts_once_among_the_validations(
    run_both: Callable[[str], Pair],
) -> None:
    pair = run_both(HEAD + STREAM)
    for name, value in pair.ours["trainer"].model.state_dict().items():
        assert torch.equal(value, pair.model.state_dict()[name]), name
    history, within = pair.ours["trainer"].history, pair.theirs["validations"]
    assert [step for step, _ in within] == history.steps["val"] == [2, 4, 6, 8, 10, 12]
    assert [values["loss"] for _, values in within] == history["val"]["loss"]
    assert pair.theirs["scheduler"].last_epoch == pair.ours["scheduler"].last_epoch == 6


@pytest.mark.parametrize("options", ["", "limit_train_batches=3,", "max_steps=5,"])
def test_the_mini_batches_that_a_stream_has_left_over_make_a_step(
    run_both: Callable[[str], Pair], options: str
) -> None:
    text = STREAM.replace("val_every=2,", f"grad_accumulate=3, {options}")
    pair = run_both(HEAD + text)
    for name, value in pair.ours["trainer"].model.state_dict().items():
        assert torch.equal(value, pair.model.state_dict()[name]), name
    history = pair.ours["trainer"].history
    assert [train["loss"] for train, _ in pair.theirs["history"]] == history["train"]["loss"]


def test_settings_of_the_script_are_kept(run_both: Callable[[str], Pair]) -> None:
    settings = "torch.backends.cudnn.benchmark = False\nNet.width = 3\n"
    pair = run_both(HEAD + settings + CASES["val_every"])
    assert all(line in pair.text for line in settings.splitlines())


@pytest.mark.parametrize("seed", ["set_seed(7)", "deepepochs.set_seed(7.9)"])
def test_a_seed_sets_all_that_the_librarys_sets(
    run_both: Callable[[str], Pair], seed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    text = HEAD + f"\nimport deepepochs\n{seed}\n" + CASES["groups_with_frozen_ones"]
    pair = run_both(text)
    lines = ["deterministic = True", "benchmark = False"]
    assert all(f"torch.backends.cudnn.{line}" in pair.text for line in lines)
    for name, value in pair.ours["trainer"].model.state_dict().items():
        assert torch.equal(value, pair.model.state_dict()[name]), name
