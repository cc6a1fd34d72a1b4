"""``deepepochs check`` and ``deepepochs verify``: the training of a script, looked at before it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepepochs.cli.main import main

SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from deepepochs import Callback, Trainer

torch.manual_seed(0)
x = torch.randn(96, 6)
data = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 8, shuffle=True)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
if "softmax" in sys.argv:
    model.append(nn.Softmax(1))

class Counting(Callback):
    num = 0
    def on_before_optimize(self, trainer, **others):
        self.num += 1
        for weight in trainer.opt.params if "counts" in sys.argv else ():
            weight.grad.mul_(self.num)

opt = torch.optim.Adam(model.parameters(), 0.01)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, callbacks=Counting(), device="cpu")
trainer.fit(data)
print("trained")
"""
LINE = 1 + SCRIPT.splitlines().index("trainer.fit(data)")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    return "train.py"


def test_a_sound_script_is_not_trained_and_nothing_is_found(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", script])
    assert capsys.readouterr().out == f"train.py, line {LINE}: nothing found\n"


def test_what_is_found_is_printed_and_the_status_is_1(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["check", script, "softmax"])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == f"train.py, line {LINE}: 1 finding"
    assert second.startswith("warning: The outputs go through softmax")


def test_a_script_is_verified_in_place_of_being_trained(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", "--steps", "6", script])
    expected = f"train.py, line {LINE}: Exact resume: saved after mini-batch 3 of 6; "
    assert capsys.readouterr().out.startswith(expected)


def test_a_script_that_would_not_resume_exactly_gives_the_status_1(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["verify", "--steps", "6", script, "counts"])
    assert "NOT an exact resume" in capsys.readouterr().out
