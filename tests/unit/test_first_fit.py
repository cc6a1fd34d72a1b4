"""Running a script up to its first fit, and doing something else there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from deepepochs import ConfigError, Trainer
from deepepochs.cli.first_fit import at_first_fit, at_fits

SCRIPT = """
import sys
import torch
from torch import nn
from deepepochs import Trainer
from beside import WIDTH

class Own(Trainer):
    def fit(self, data):
        return super().fit(data, epochs=3)

if __name__ == "__main__":
    data = [(torch.ones(2, WIDTH), torch.ones(2, 1))]
    cls = Own if "own" in sys.argv else Trainer
    try:
        cls(nn.Linear(WIDTH, 1), nn.MSELoss(), console="off").fit(data)
    except Exception:
        print("caught")
    print("after")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_the_script_ends_in_its_first_fit_and_gives_its_trainer_and_options(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(trainer: Any, options: dict[str, Any], frame: Any) -> Any:
        return trainer, options, frame.f_code.co_filename, frame.f_globals["WIDTH"]

    trainer, options, file, width = at_first_fit(script, [], look)
    assert trainer.init_epoch == 0
    assert list(options) == ["train_dl"]
    assert (file, width) == (str(script), 4)
    assert capsys.readouterr().out == ""


def test_the_arguments_go_to_the_script_and_a_fit_of_its_own_is_found(script: Path) -> None:
    options = at_first_fit(script, ["own"], lambda trainer, options, frame: options)
    assert sorted(options) == ["epochs", "train_dl"]


def test_afterwards_trainers_train_and_python_is_as_it_was(script: Path) -> None:
    before = Trainer.fit, sys.argv[:], sys.path[:]
    at_first_fit(script, [], lambda *given: None)
    assert (Trainer.fit, sys.argv, sys.path) == before


def test_what_is_done_may_train(script: Path) -> None:
    def train(trainer: Any, options: dict[str, Any], frame: Any) -> int:
        return len(trainer.fit(**options, epochs=2)["train"]["loss"])

    assert at_first_fit(script, [], train) == 2


def test_an_error_of_what_is_done_comes_out(script: Path) -> None:
    def fail(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_first_fit(script, [], fail)


def test_a_script_without_a_fit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match="no trainer"):
        at_first_fit(tmp_path / "empty.py", [], print)
    with pytest.raises(ConfigError, match="There is no script"):
        at_first_fit(tmp_path / "none.py", [], print)


def test_a_script_that_fails_or_is_called_wrongly_ends_with_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(SystemExit, match="3"):
        at_first_fit(tmp_path / "fails.py", [], print)
    (tmp_path / "wrong.py").write_text(
        "import torch\nfrom deepepochs import Trainer\n"
        "Trainer(torch.nn.Linear(1, 1), torch.nn.MSELoss()).fit(metric=1)\n"
    )
    with pytest.raises(ConfigError, match="Did you mean 'metrics'"):
        at_first_fit(tmp_path / "wrong.py", [], print)


FITS = """
import torch
from torch import nn
from deepepochs import Trainer

data = [(torch.ones(2, 4), torch.ones(2, 1))]
for num in (1, 2, 3):
    history = Trainer(nn.Linear(4, 1), nn.MSELoss(), console="off").fit(data, epochs=num)
    print("trained", len(history["train"]["loss"]))
"""


def test_the_fits_before_the_last_are_run_with_what_is_called_before_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fits.py"
    path.write_text(FITS)

    def look(trainer: Any, options: dict[str, Any], frame: Any) -> int:
        trainer.fit(options["train_dl"], epochs=1)  # which is not looked at
        print("looked")
        return int(options["epochs"])

    assert at_fits(path, [], look, 3) == [1, 2, 3]
    expected = ["looked", "trained 1", "looked", "trained 2", "looked"]
    assert capsys.readouterr().out.splitlines() == expected
    with pytest.raises(ConfigError, match=r"fits\.py has ended after 3 of 4 fits"):
        at_fits(path, [], look, 4)
