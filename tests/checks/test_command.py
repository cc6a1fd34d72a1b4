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


FITS = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from deepepochs import CheckCallback, Trainer

torch.manual_seed(0)
x = torch.randn(40, 4)
data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8, shuffle=True)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.scale, self.grows = nn.Linear(4, 1), 1.0, False
    def forward(self, x):
        self.scale += 0.1 * self.grows
        return self.inner(x) * self.scale

first = Net()
check = CheckCallback("loss", on_stage="train")
options = {"running_id": "mine", "resume": "auto"} if "again" in sys.argv else {}
trainer = Trainer(first, nn.MSELoss(), epochs=2, callbacks=check, console="off", **options)
done = trainer.fit(data)
print("pre-trained", len(done["train"]["loss"]))
if "grows" in sys.argv:
    first.grows = True
if "same" in sys.argv:
    done = trainer.fit(data, epochs=4)
else:
    for fold in range(2):
        opt = torch.optim.SGD(first.parameters(), 0.01)
        done = Trainer(first, nn.MSELoss(), opt, epochs=3, console="off").fit(data)
print("tuned", len(done["train"]["loss"]))
"""


@pytest.fixture
def fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("tune.py").write_text(FITS)
    return "tune.py"


def proved(out: str) -> list[str]:
    """The start of each line that was printed."""
    return [line.partition(" resume: ")[0] for line in out.splitlines()]


def line_of(text: str) -> int:
    found = [number for number, line in enumerate(FITS.splitlines(), 1) if text in line]
    return found[0]


@pytest.mark.parametrize("leg", ["same", "other"])
def test_several_fits_are_proved_and_each_is_trained_before_the_next(
    fits: str, leg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", "--steps", "6", "--fits", "2", fits, leg])
    second = line_of("trainer.fit(data, epochs=4)" if leg == "same" else "epochs=3, console")
    assert proved(capsys.readouterr().out) == [
        f"tune.py, line {line_of('done = trainer.fit(data)')}: Exact",
        "pre-trained 2",
        f"tune.py, line {second}: Exact",
    ]
    assert [path.name for path in Path("logs").glob("*/checkpoint.ckpt")] == ["checkpoint.ckpt"]


def test_of_one_fit_nothing_is_trained_or_written(
    fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", "--steps", "6", fits])
    assert len(proved(capsys.readouterr().out)) == 1
    assert not Path("logs").exists()


@pytest.mark.parametrize("leg", ["same", "other"])
def test_a_later_fit_that_is_not_exact_ends_the_script(
    fits: str, leg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["verify", "--steps", "6", "--fits", "3", fits, leg, "grows"])
    first, _, second, *rest = capsys.readouterr().out.splitlines()
    assert ": Exact resume: " in first and ": NOT an exact resume: " in second
    assert any("does not bring back model.scale: 1.3" in line for line in rest)
    assert "tuned" not in "".join(rest)


def test_a_script_with_fewer_fits_says_how_many_there_were(
    fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"tune\.py has ended after 2 of 5 fits"):
        main(["verify", "--steps", "6", "--fits", "5", fits, "same"])
    assert proved(capsys.readouterr().out)[-1] == "tuned 4"


def test_fits_that_were_finished_in_an_earlier_process_are_skipped_after_their_proof(
    fits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit, match="after 2 of 3 fits"):
            main(["verify", "--steps", "6", "--fits", "3", fits, "same", "again"])
        out = capsys.readouterr().out
        assert [line.partition(": ")[2] for line in proved(out)[::2]] == ["Exact", "Exact"]
        assert proved(out)[1::2] == ["pre-trained 2", "tuned 4"]
    assert [path.name for path in Path("logs").iterdir()] == ["mine"]
