"""What the script of `plain_loop` cannot say is marked in it, and listed in its head."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cases import CASES, HEAD, Pair
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import ConfigError, Trainer

Run = Callable[..., dict[str, Any]]
RunBoth = Callable[[str], Pair]


def written(run: Run, source: str) -> str:
    """The script that a script writes."""
    run(source, writes=True)
    return Path("loop.py").read_text(encoding="utf-8")


def marks(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "# NOT WRITTEN OUT" in line]


def to_fill(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "# FILL IN" in line]


CALLBACK = """

class Mine(Callback):
    def on_before_fit(self, trainer, epochs):
        pass

    def on_before_train_batch(self, trainer, batch_x, batch_y, batch_idx):
        pass

    def on_after_backward(self, trainer, loss):
        pass

    def on_val_metrics(self, trainer, loss, model_out, batch_y, task):
        pass

    def on_after_epoch(self, trainer, **others):
        pass


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=1, callbacks=Mine(), console="off")
trainer.fit(train_dl, val_dl)
"""


def test_hook_of_the_user_is_marked_where_it_runs(run: Run) -> None:
    text = written(run, HEAD + CALLBACK)

    lines = text.splitlines()
    after = {
        match[1]: lines[index + 1].strip()
        for index, line in enumerate(lines[:-1])
        if (match := re.search(r"# NOT WRITTEN OUT: Mine\.(\w+) \(train\.py:\d+\)", line))
    }
    assert after == {
        "on_before_fit": "history = []",
        "on_before_train_batch": "weight = len(y)",
        "on_after_backward": "opt.step()",
        "on_val_metrics": 'return {"loss": total / count}',
    }
    assert lines[-1].startswith("    # NOT WRITTEN OUT: Mine.on_after_epoch (train.py:")
    head = text.partition('"""')[2].partition('"""')[0]
    assert "Not written out:" in head and "- Mine.on_after_epoch (train.py:" in head


def trains(lines: str, *options: str, call: str = "fit(train_dl, val_dl)") -> str:
    """A script that trains, with these options of the trainer."""
    given = ", ".join(["net", "F.cross_entropy", "epochs=1", 'console="off"', *options])
    return f"net = Net()\n{lines}\ntrainer = Trainer({given})\ntrainer.{call}\n"


def steps(lines: str, *options: str) -> str:
    """A script with a step of these lines."""
    head = "class Task(EpochTask):\n    def train_step(self, batch_x, batch_y, **step_args):\n"
    task = head + textwrap.indent(textwrap.dedent(lines), " " * 8)
    return trains(task, *options, call='plain_loop("loop.py", train_tasks=Task(train_dl))')


class Gap(NamedTuple):
    """A script, and what the one that it writes marks and has filled in."""

    body: str
    marks: Sequence[str] = ()
    fills: Sequence[str] = ()


LEFT_OUT = "mini-batches without this, which grad_accumulate leaves out of their window"
GAPS = {
    "callbacks_of_the_library": Gap(
        trains(
            "from deepepochs import LogCallback",
            'callbacks=[LogCallback(), GradClipCallback(1.0), CheckCallback("loss")]',
        ),
        ["LogCallback", "CheckCallback: only its best weights are saved"],
    ),
    "what_a_step_reads_of_the_trainer": Gap(
        steps("""
            out = self.model(*batch_x)
            if self.trainer.max_epochs > 3:
                out = out * self.run.num_batches
            self.trainer.note("here")
            right = accuracy(out, batch_y)
            self.loss(out * right, batch_y)
        """),
        ['self.trainer.note("here")'],
        [
            "if FILL_IN() > 3:  # FILL IN: self.trainer.max_epochs",
            "out = out * FILL_IN()  # FILL IN: self.run.num_batches",
            "right = FILL_IN()  # FILL IN: accuracy(out, batch_y)",
        ],
    ),
    "verb_and_split_of_the_user": Gap(
        """

class Mine(Trainer):
    def prepare_data(self, batch_data, to_device=True):
        return super().prepare_data(batch_data, to_device)

    def loss(self, model_out, batch_y, **options):
        return super().loss(model_out, batch_y, **options)


trainer = Mine(Net(), F.cross_entropy, epochs=1, console="off")
trainer.fit(train_dl)
""",
        ["Mine.prepare_data", "Mine.loss"],
    ),
    "verb_on_a_condition_inside_an_expression": Gap(
        steps("""
            losses = [self.loss(self.model(*batch_x), batch_y) for _ in range(1)]
            return {"mean": sum(losses)}
        """),
        fills=[
            "losses = [FILL_IN() for _ in range(1)]  # FILL IN: self.loss(self.model(*batch_x), batch_y)"
        ],
    ),
    "trainer_of_a_function_that_does_more": Gap(
        """
def make(model):
    opt = torch.optim.SGD([*model.parameters()], 0.1)
    trainer = Trainer(model, F.cross_entropy, opt, epochs=1)
    trainer.note("made")
    return trainer


net = Net()
trainer = make(net)
trainer.fit(train_dl)
""",
        ["trainer = make(net)"],
    ),
    "trainer_of_a_class_that_does_more": Gap(
        """
class Experiment:
    def __init__(self):
        self.net = Net()
        self.trainer = Trainer(self.net, F.cross_entropy, epochs=1, metrics=[lambda p, t: p.std()])
        self.trainer.note("made")

    def run(self):
        self.trainer.fit(train_dl)


Experiment().run()
""",
        fills=[
            "model: Any = FILL_IN()  # FILL IN: the model (Net)",
            "metric_lambda: Any = FILL_IN()  # FILL IN: the metric <lambda>",
        ],
    ),
    "limits": Gap(
        trains("", "max_time='9h'", "on_oom='split'", "overfit_batches=2"),
        ["max_time=32400.0", "on_oom='split'"],
        [
            f"{stage}_dl_2: Any = FILL_IN()  # FILL IN: a list of the mini-batches that overfit_batches=2 "
            f"keeps of the {name} loader"
            for stage, name in (("train", "training"), ("val", "validation"))
        ],
    ),
    "end_within_an_epoch_of_several_tasks": Gap(
        trains(
            'tasks = [EpochTask(train_dl, name="night"), EpochTask(val_dl, name="day")]',
            *("max_steps=4", "val_every=2", 'callbacks=CheckCallback("loss", patience=2)'),
            call="fit(train_tasks=tasks, val_dl=val_dl)",
        ),
        [
            "an end of the fit within an epoch of several training tasks",
            "CheckCallback: only its best weights are saved",
            "max_steps=4",
        ],
    ),
    "return_in_a_loop_of_a_step": Gap(
        steps("""
            for part in batch_x:
                if part.mean() > 9:
                    return None
            self.loss(self.model(*batch_x), batch_y)
        """),
        ["the return that ends this loop and the step"],
    ),
    "closure_with_lines_of_its_own": Gap(
        steps(
            """
            def closure():
                loss = self.loss_fn(self.model(*batch_x), batch_y)
                self.backward(loss)
                return loss

            self.optimize(closure=closure)
            """,
            "opt=torch.optim.LBFGS(net.parameters())",
        ),
        ["self.optimize(closure=closure)"],
        ["return loss  # FILL IN: self.backward(loss)"],
    ),
    "average_of_each_optimizer_alone": Gap(
        steps(
            """
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)
            self.optimize(0)
            self.optimize(1)
            """,
            "opt=[torch.optim.SGD(net.one.parameters()), torch.optim.SGD(net.two.parameters())]",
            "ema=0.9",
        ),
        ["the average of the weights of each optimizer alone"] * 2,
    ),
    "optimizer_that_the_library_has_put_together": Gap(
        trains(
            'groups = deepepochs.optim.groups.param_groups(net, {"one.*": {"lr": 0.1}})',
            "opt=torch.optim.AdamW(groups, lr=0.01)",
        ),
        fills=["opt: Any = FILL_IN()  # FILL IN: the optimizer (AdamW)"],
    ),
    "model_by_another_name_in_mixed_precision": Gap(
        steps(
            """
            network = self.model
            self.loss(network(*batch_x), batch_y)
            """,
            'precision="bf16"',
        ),
        ["mixed precision of the model by another name"],
    ),
    "mini_batch_that_returns": Gap(
        steps(
            """
            if self.run.batch_idx == 1:
                return None
            self.loss(self.model(*batch_x), batch_y)
            """,
            "grad_accumulate=2",
        ),
        [LEFT_OUT] * 2,
    ),
    "mini_batch_on_a_condition": Gap(
        steps(
            """
            out = self.model(*batch_x)
            if out.mean() > 0:
                self.loss(out, batch_y)
            """,
            "grad_accumulate=2",
        ),
        [LEFT_OUT] * 2,
    ),
    "mini_batch_in_a_loop": Gap(
        steps(
            """
            for part in range(2):
                self.loss(self.model(batch_x[0][part::2]), batch_y[part::2])
            """,
            "grad_accumulate=2",
        )
    ),
    "fit_after_another": Gap(
        trains("", call="fit(train_dl)\ntrainer.fit(train_dl, epochs=3)"),
        ["trainer.fit(train_dl)", "the 1 epoch before, which made the weights"],
    ),
    "resume": Gap(
        trains("", *('callbacks=CheckCallback("loss")', 'resume="auto"', 'running_id="mine"')),
        ["CheckCallback: only its best weights are saved", "resume='auto'"],
    ),
}


@pytest.mark.parametrize("name", GAPS)
def test_what_is_not_written_out_is_marked(run: Run, name: str) -> None:
    gap = GAPS[name]
    text = written(run, HEAD + gap.body)
    prefix = "# NOT WRITTEN OUT: "
    assert [mark.split(" (train.py")[0] for mark in marks(text)] == [prefix + m for m in gap.marks]
    assert to_fill(text) == [*gap.fills]


def test_patch_that_a_step_returns_is_marked_in_its_place(run_both: RunBoth) -> None:
    body = """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        loss = self.loss(self.model(*batch_x), batch_y)
        return {"mine": ValuePatch(2.0 * len(batch_y)).load(loss), "twice": 2 * loss}


trainer = Trainer(Net(), F.cross_entropy, epochs=1, console="off")
model = trainer.model
trainer.fit(train_tasks=Task(train_dl))
"""
    pair = run_both(HEAD + body)

    (mark,) = marks(pair.text)
    assert mark.startswith(
        '# NOT WRITTEN OUT: "mine": ValuePatch(2.0 * len(batch_y)).load(loss) (train.'
    )
    assert set(pair.theirs["history"][0][0]) == {"loss", "twice"}


def test_script_without_source_has_everything_filled_in_but_what_the_trainer_knows(
    tmp_path: Path,
) -> None:
    code = (
        "import torch; from torch.nn import functional as F; from deepepochs import Trainer; "
        "trainer = Trainer(torch.nn.Linear(2, 2), F.cross_entropy, epochs=1, console='off'); "
        "data = [(torch.zeros(3, 2), torch.zeros(3).long())]; "
        "print(trainer.plain_loop(None, data, data))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert not done.stderr
    assert to_fill(done.stdout) == [
        "model: Any = FILL_IN()  # FILL IN: the model (Linear)",
        "train_dl: Any = FILL_IN()  # FILL IN: the training loader",
        "val_dl: Any = FILL_IN()  # FILL IN: the validation loader",
    ] or sys.version_info >= (3, 13)
    assert "torch.nn.functional.cross_entropy(out, y)" in done.stdout.replace(
        "F.cross", "torch.nn.functional.cross"
    )
    compile(done.stdout, "loop.py", "exec")


def run_text(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    path.write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)


def test_a_script_with_gaps_stops_at_once_and_says_what_is_missing(
    run: Run, tmp_path: Path
) -> None:
    step = """
    out = self.model(*batch_x)
    kept = batch_y[self.run.num_batches : self.trainer.max_epochs]
    self.loss(out, batch_y + 0 * kept.sum())
    """
    text = written(
        run, HEAD + steps(step).replace("F.cross_entropy", "lambda a, b: F.cross_entropy(a, b)")
    )
    (cut,) = [line for line in to_fill(text) if "batch_y[" in line]
    assert cut.startswith("kept = batch_y[FILL_IN() : FILL_IN()]  # FILL IN: ")
    found = "NotImplementedError: FILL IN: self.run.num_batches, self.trainer.max_epochs."
    done = run_text(text, tmp_path / "filled.py")
    assert found in done.stderr and not done.stdout
    start = text.index("# Delete this call")
    without = text[:start] + text[text.index(")\n", start) + 2 :]
    done = run_text(without, tmp_path / "filled.py")
    assert "NotImplementedError: FILL IN: what the comment here says" in done.stderr
    filled = without.replace("FILL_IN() : FILL_IN()", "0:2")
    assert not run_text(filled, tmp_path / "filled.py").returncode


def test_a_script_without_gaps_has_nothing_that_stops_it(run: Run) -> None:
    assert "FILL_IN" not in written(run, HEAD + CASES["val_every"])


def test_model_of_another_module_is_to_be_filled_in(run: Run) -> None:
    Path("parts.py").write_text(
        "from torch import nn\nfrom deepepochs import Trainer\n\n"
        "def trainer_of(loss):\n"
        "    return Trainer(nn.Linear(8, 2), loss, epochs=1, console='off')\n",
        encoding="utf-8",
    )
    body = "\nfrom parts import trainer_of\n\ntrainer = trainer_of(F.cross_entropy)\ntrainer.fit(train_dl)\n"
    text = written(run, HEAD + body)

    assert to_fill(text) == ["model: Any = FILL_IN()  # FILL IN: the model (Linear)"]
    assert "To fill in:\n\n- the model (Linear)\n" in text


@pytest.mark.parametrize(
    ("imports", "made"),
    [
        ("from deepepochs import *\n", "Trainer"),
        ("import deepepochs as de\n", "de.Trainer"),
        ("from deepepochs import Trainer as T\n", "T"),
        ("import deepepochs.trainer\n", "deepepochs.trainer.Trainer"),
    ],
)
def test_library_is_known_under_any_name(run_both: RunBoth, imports: str, made: str) -> None:
    body = (
        f"{imports}\nmodel = Net()\n"
        f"trainer = {made}(model, F.cross_entropy, epochs=1, metrics='accuracy', console='off')\n"
        "trainer.fit(train_dl, val_dl)\n"
    )
    pair = run_both(HEAD + body)

    assert not to_fill(pair.text) and not marks(pair.text)
    assert torch.equal(pair.model.two.weight, pair.ours["model"].two.weight)


def test_loop_with_workers_is_guarded_and_says_how_they_are_seeded(run_both: RunBoth) -> None:
    body = """
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=1, console="off")
data = DataLoader(TensorDataset(x, y), 16, num_workers=1)
if __name__ == "__main__":
    trainer.fit(data)
"""
    pair = run_both(HEAD + body)

    assert 'if __name__ == "__main__":\n    # NOT WRITTEN OUT: worker_seeding=' in pair.text
    assert torch.equal(pair.model.two.weight, pair.ours["model"].two.weight)


def test_fold_and_arguments_of_the_function_around_are_given_as_they_are(run: Run) -> None:
    assert "rate = 0.01\nfold = 0\n" in written(run, HEAD + CASES["main_function"])


def test_cells_of_a_notebook_are_one_script(tmp_path: Path) -> None:
    cells = [
        "%matplotlib inline\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F",
        "from deepepochs import Trainer\nmodel = nn.Linear(4, 2)",
        "data = [(torch.randn(8, 4), torch.arange(8) % 2)]\n"
        "trainer = Trainer(model, F.cross_entropy, epochs=1, console='off')",
        "!ls\ntext = trainer.plain_loop(None, data)",
    ]
    import linecache

    names: dict[str, Any] = {"get_ipython": None, "In": ["", *cells]}
    for index, cell in enumerate(cells):
        code = "\n".join("" if line[:1] in "%!" else line for line in cell.split("\n"))
        file = str(tmp_path / f"ipykernel_{index}.py")
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        exec(compile(code, file, "exec"), names)

    assert not to_fill(names["text"])
    assert "model = nn.Linear(4, 2)\ndata = [" in names["text"]


def test_writing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    data = DataLoader(TensorDataset(torch.randn(20, 4), torch.arange(20) % 2), 8, shuffle=True)
    trainer = Trainer(model, F.cross_entropy, epochs=1, metrics="f1", console="off")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    trainer.plain_loop(None, data, data)

    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and not [*tmp_path.iterdir()]


def test_loader_in_place_of_the_path_is_an_error() -> None:
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, console="off")
    with pytest.raises(ConfigError, match=r"plain_loop\(path=DataLoader"):
        trainer.plain_loop(DataLoader([1]))  # type: ignore[arg-type]
