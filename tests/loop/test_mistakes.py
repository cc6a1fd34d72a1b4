"""Each mistake of a first hour is told in two lines: the problem, then the remedy.

The programs are in `mistakes.py`.
"""

from __future__ import annotations

import functools
import pickle
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint

import deepepochs
from deepepochs.errors import LoopException, StepError

sys.path.insert(0, str(Path(__file__).parent))
import mistakes
from mistakes import ERRORS, SOUND, WARNINGS, Mistake, X, fit, linear

OF_LOADER = {
    "samples of unequal shapes",
    "a data set that returns nothing",
    "samples that are objects",
}


def named(mistake: Mistake) -> str:
    return mistake.name


def raised_by(mistake: Mistake) -> Exception:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception) as caught:
            mistake.program()
    return caught.value


@pytest.mark.parametrize("mistake", ERRORS, ids=named)
def test_a_mistake_is_told_with_its_remedy_in_two_lines(mistake: Mistake) -> None:
    error = raised_by(mistake)
    # Of a loader that fails, Python's own message comes first, and ours below it.
    said = error.__notes__[0] if mistake.name in OF_LOADER else str(error)
    problem, *rest = said.splitlines()
    assert mistake.problem in problem
    assert mistake.remedy in "".join(rest[:1])
    assert isinstance(error, LoopException) or mistake.name in OF_LOADER
    for word in ("Steps.", "counted from 0", "batch 0", "epoch 0", "task '0'"):
        assert word not in said


@pytest.mark.parametrize("mistake", WARNINGS, ids=named)
def test_what_raises_nothing_is_warned_of_once_at_the_line_of_the_user(mistake: Mistake) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        mistake.program()
    (warning,) = told
    problem, remedy, *_ = str(warning.message).splitlines()
    assert mistake.problem in problem and mistake.remedy in remedy
    assert Path(warning.filename) == Path(mistakes.__file__)


@pytest.mark.parametrize("program", [program for _, program in SOUND], ids=[n for n, _ in SOUND])
def test_what_looks_like_a_mistake_and_is_right_says_nothing(program: Any) -> None:
    program()  # warnings are errors


def test_the_table_has_no_entry_twice() -> None:
    names = [mistake.name for mistake in (*ERRORS, *WARNINGS)]
    assert len(set(names)) == len(names)


def float_labels() -> None:
    fit(linear(), X, mistakes.CLASSES.float())


def error_of(program: Any) -> Any:
    with pytest.raises(Exception) as caught:
        program()
    return caught.value


def files_of(error: Exception) -> list[str]:
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def test_a_known_fault_is_caught_as_what_was_raised_and_keeps_it() -> None:
    error = error_of(float_labels)
    assert isinstance(error, StepError) and isinstance(error, RuntimeError)
    assert error.__suppress_context__ and type(error.__context__) is RuntimeError
    assert str(error).splitlines()[-1] == (f"It was raised as RuntimeError: {error.__context__}")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_a_lack_of_device_memory_is_caught_as_pytorchs_own_error() -> None:
    error = error_of(lambda: fit(mistakes.Net(mistakes.without_device_memory), X, mistakes.CLASSES))
    assert isinstance(error, torch.OutOfMemoryError) and "CUDA out of memory." in str(error)


def test_the_traceback_of_a_known_fault_has_the_users_frames_and_two_of_the_library() -> None:
    def forward(out: torch.Tensor) -> torch.Tensor:
        return mistakes.linear(3, 5)(out)  # outside of the model

    error = error_of(lambda: fit(mistakes.Net(forward), X, mistakes.CLASSES))
    own = str(Path(deepepochs.__file__).parent)
    files = files_of(error)
    assert [Path(file).name for file in files if file.startswith(own)] == ["trainer.py", "loop.py"]
    assert not any(file.startswith(str(Path(torch.__file__).parent)) for file in files)
    assert files[-1] == __file__
    assert len(files_of(error.__context__)) > len(files)


class OwnLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(9, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_an_unknown_fault_stays_as_it_is_and_says_below_it_where_it_was() -> None:
    error = error_of(lambda: fit(OwnLayer(), X, mistakes.CLASSES))
    assert type(error) is RuntimeError and "cannot be multiplied" in str(error)
    assert error.__notes__ == [
        "In epoch 1, training batch 1 of 2: batch_x is (float32 [32, 8],), batch_y is int64 [32]."
    ]
    assert files_of(error).count(__file__) == 3  # the test, its program and the layer
    assert error.__context__ is None and not error.__suppress_context__


def test_an_unknown_fault_keeps_its_cause() -> None:
    def loss(model_out: Any, targets: Any) -> Any:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("then") from first

    error = error_of(lambda: fit(linear(), X, mistakes.CLASSES, loss))
    assert type(error.__cause__) is KeyError
    assert error.__notes__[0].endswith("model_out is float32 [32, 3].")


def test_the_mini_batch_is_counted_and_the_task_named_as_the_console_does() -> None:
    night = deepepochs.EpochTask(
        [(X, mistakes.CLASSES), (X, mistakes.CLASSES.float())], name="night"
    )
    day = deepepochs.EpochTask([(X, mistakes.CLASSES)], name="day")
    trainer = deepepochs.Trainer(linear(), torch.nn.functional.cross_entropy, show_info=False)
    error = error_of(lambda: trainer.fit(train_tasks=[day, night]))
    assert "In epoch 1, training batch 2 of 2 of task 'night': batch_x is" in str(error)


def test_a_fault_of_a_later_epoch_and_a_step_of_ones_own_are_named() -> None:
    epochs = []

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        epochs.append(1)
        self.loss(self.model(*batch_x), batch_y.float() if len(epochs) == 4 else batch_y)

    error = error_of(lambda: mistakes.run_step(step))
    assert "In epoch 2, training batch 2 of 2, MyTask.step: batch_x is" in str(error)


def test_what_users_have_noted_stays() -> None:
    class Noting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(3, 9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.layer(x)  # type: ignore[no-any-return]
            except RuntimeError as error:
                deepepochs.errors.add_note(error, "look at the table")
                raise

    error = error_of(lambda: fit(Noting(), X, mistakes.CLASSES))
    assert error.__notes__ == ["look at the table"]


class Unreadable(torch.nn.Linear):
    """Raises, and cannot be looked at afterwards."""

    @property
    def in_features(self) -> int:  # type: ignore[override]
        raise OSError("gone")

    @in_features.setter
    def in_features(self, value: int) -> None:
        pass


def test_a_fault_in_looking_for_the_fault_hides_nothing() -> None:
    error = error_of(lambda: fit(Unreadable(9, 3), X, mistakes.CLASSES))
    assert type(error) is RuntimeError and error.__notes__[0].startswith("In epoch 1, ")


def test_the_library_reads_no_saved_tensor_of_a_graph() -> None:
    """Where layers are computed again in the backward pass, to read one would compute them twice."""
    calls = []

    def forward(out: torch.Tensor) -> torch.Tensor:
        def again(x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return x.softmax(1).log()

        return torch.utils.checkpoint.checkpoint(again, out, use_reentrant=False)  # type: ignore[no-any-return]

    fit(mistakes.Net(forward), X, mistakes.CLASSES, torch.nn.functional.nll_loss, epochs=1)
    assert len(calls) == 4  # two mini-batches, forward and backward


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "cross_entropy"])
def test_a_loss_that_was_refused_for_another_reason_is_not_said_not_to_fit(name: str) -> None:
    loss = functools.partial(getattr(torch.nn.functional, name), reduction="meen")
    error = error_of(lambda: fit(linear(), X, X[:, :3], loss))
    assert type(error) is ValueError and "meen" in str(error)


def test_an_error_of_a_hook_is_not_taken_for_one_of_the_loss_function() -> None:
    class Wrong(deepepochs.Callback):
        def on_before_backward(self, trainer: Any, loss: Any) -> None:
            None + loss  # type: ignore[operator]

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        out = self.model(*batch_x)
        self.loss(None, out.mean())

    def second(model_out: Any, targets: Any) -> Any:
        return targets

    task = type("MyTask", (deepepochs.EpochTask,), {"step": step})([(X, mistakes.CLASSES)])
    trainer = deepepochs.Trainer(linear(), second, callbacks=Wrong(), show_info=False)
    error = error_of(lambda: trainer.fit(train_tasks=task))
    assert type(error) is TypeError and "NoneType" in str(error)
    assert "raised in Wrong.on_before_backward of a callback" in error.__notes__


@pytest.mark.parametrize("sched_on", ["step", "epoch"])
def test_a_cycle_that_is_shorter_than_the_fit_is_told_before_torch_refuses_its_step(
    sched_on: str,
) -> None:
    moves = {"step": 8, "epoch": 4}[sched_on]
    with (
        pytest.warns(
            UserWarning, match=rf"total_steps=3, and moves {moves} times by the end"
        ) as told,
        pytest.raises(ValueError, match="Tried to step 4 times"),
    ):
        mistakes.scheduled(mistakes.one_cycle(3), sched_on)
    assert f"torch raises an error at move 4.\nGive OneCycleLR total_steps={moves}" in str(
        told[0].message
    )


class WithoutInit(deepepochs.Trainer):
    def __init__(self, model: Any) -> None:
        self.name = model


@pytest.mark.parametrize("use", ["fit", "epochs"])
def test_a_trainer_without_super_init_is_told_to_call_it(use: str) -> None:
    trainer = WithoutInit(linear())
    with pytest.raises(
        AttributeError, match=r"Call super\(\).__init__\(model, loss, opt, ...\) in it"
    ):
        trainer.fit([(X, mistakes.CLASSES)]) if use == "fit" else trainer.epochs


def test_a_model_given_as_a_loader_belongs_in_the_trainer() -> None:
    trainer = deepepochs.Trainer(linear(), None, show_info=False)
    for call in (trainer.fit, trainer.test):
        with pytest.raises(TypeError, match=r"the model belongs in Trainer\(model, loss, opt\)"):
            call(linear(), [(X, mistakes.CLASSES)])  # type: ignore[operator]


def test_an_error_of_a_callback_of_the_library_has_no_note_on_its_hook(tmp_path: Path) -> None:
    checks = [deepepochs.CheckCallback("loss", "train", ckpt_dir=tmp_path) for _ in range(2)]
    error = error_of(lambda: fit(linear(), X, mistakes.CLASSES, callbacks=checks))
    assert isinstance(error, LoopException) and "Two CheckCallbacks write to" in str(error)
    assert not any("of a callback" in note for note in getattr(error, "__notes__", []))
