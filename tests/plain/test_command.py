"""`deepepochs show-loop` writes the loop of a script, and trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, HEAD

from deepepochs.cli.main import main


@pytest.mark.parametrize("case", ["main_function", "several_tasks", "step_of_trainer"])
def test_command_writes_what_the_method_writes(
    run: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], case: str
) -> None:
    run(HEAD + CASES[case], writes=True)
    Path("train.py").write_text(HEAD + CASES[case], encoding="utf-8")

    main(["show-loop", "-o", "other.py", "train.py"])

    assert Path("other.py").read_text(encoding="utf-8") == Path("loop.py").read_text("utf-8")
    assert "epoch" not in capsys.readouterr().out


def test_command_prints_the_loop_alone_and_hands_arguments_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body = """
import sys

print("reading", sys.argv[1:])
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=1)
trainer.fit(train_dl)
print("trained")
"""
    Path("train.py").write_text(HEAD + body, encoding="utf-8")

    main(["show-loop", "train.py", "--rate", "3"])

    printed = capsys.readouterr()
    assert printed.out.startswith('"""The training of train.py')
    assert printed.err == "reading ['--rate', '3']\n"


def test_trainer_may_be_made_and_fitted_in_one_expression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body = "\nTrainer(Net(), F.mse_loss, epochs=3).fit(train_dl)\nlater = undefined\n"
    Path("train.py").write_text(HEAD + body, encoding="utf-8")

    main(["show-loop", "train.py"])

    text = capsys.readouterr().out
    assert "model = Net()" in text and "F.mse_loss(out, y)" in text
    assert "FILL IN" not in text and "later" not in text


def test_an_argument_for_the_epochs_acts_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()
Trainer(Net(), F.cross_entropy, epochs=args.epochs).fit(train_dl)
"""
    Path("train.py").write_text(HEAD + body, encoding="utf-8")

    main(["show-loop", "train.py", "--epochs", "3"])
    text = capsys.readouterr().out
    assert "for epoch in range(args.epochs):" in text and "/{args.epochs}" in text

    fixed = body.replace("epochs=args.epochs", "epochs=5")
    Path("train.py").write_text(HEAD + fixed, encoding="utf-8")
    main(["show-loop", "train.py"])
    text = capsys.readouterr().out
    assert "for epoch in range(5):" in text and "args.epochs" not in text


@pytest.mark.parametrize(("before", "is_known"), [("", True), ("if len(ids) < 3: continue", False)])
def test_the_turn_of_a_loop_is_the_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: str,
    is_known: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    body = f"""
for ids in torch.randperm(60).split(20):
    {before}
    dl = DataLoader(TensorDataset(x[ids], y[ids]), 16)
    Trainer(Net(), F.cross_entropy, epochs=1).fit(dl)
"""
    Path("train.py").write_text(HEAD + body, encoding="utf-8")

    main(["show-loop", "train.py"])

    text = capsys.readouterr().out
    assert ("ids = next(iter(torch.randperm(60).split(20)))" in text) == is_known
    assert ("FILL IN: ids" in text) != is_known
