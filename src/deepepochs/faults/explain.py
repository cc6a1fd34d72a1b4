"""Explains an error of a step in the words of the user.

Where the fault is known, the error that ends the fit begins with the problem and the remedy, and
says after it what PyTorch said. Where it is not, PyTorch's error stays as it is, and a note
below it says which mini-batch it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..arguments import default_loss
from ..errors import DeepEpochsError, StopLoopException, add_note, step_error
from ..runtime.rounds import UNUSED
from ..stages import Stage
from .backward import fault_of_backward, fault_of_determinism, fault_of_memory
from .calls import fault_of_call
from .layers import fault_of_layer
from .losses import Found, fault_of_loss
from .scene import Scene, look_at, users_frames
from .words import DEFAULT_STEP, PassName, brief

FAULTS: tuple[Callable[[Scene], Found | None], ...] = (
    fault_of_memory,
    fault_of_determinism,
    fault_of_loss,
    fault_of_call,
    fault_of_layer,
    fault_of_backward,
)
NO_GRADIENT = "does not require grad"  # torch's words for a tensor outside of a graph
LONGEST = 200  # characters of the error that was raised


def explained(run: Any, error: Exception) -> Exception:
    """Give the error that is to be raised for one of a step: another, or this one with notes.

    Raise it where this one is caught. It shows the text of this one, but not its traceback.
    """
    trainer, step_name = run.trainer, run.recorder.step_name
    if isinstance(error, (DeepEpochsError, StopLoopException)):
        return _in_few_frames(error)
    is_own = trainer.has_own_split or step_name != DEFAULT_STEP
    scene = Scene(error, run.batch_x, run.batch_y, trainer.model, trainer.loss_fn, is_own)
    scene = scene._replace(is_first=run.batch_idx == 0, num_samples=run.weigher.num_samples)
    where = f"In {run.where}, {step_name}" if step_name != DEFAULT_STEP else f"In {run.where}"
    hints = _hints_on_devices(error)
    if "find_unused_parameters" in str(error):  # of DistributedDataParallel
        hints.append(UNUSED)
    if not run.is_training:
        hints += _hints_on_gradients(run.stage, error)
    return _told(scene, where, hints)


def explained_prediction(
    trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int, error: Exception, model: Any = None
) -> Exception:
    """Give the error that is to be raised for one of the model in ``predict``; see `explained`.

    ``model`` is a copy that was called in place of the model.
    """
    called = trainer.model if model is None else model
    scene = Scene(error, batch_x, batch_y, called, trainer.loss_fn, trainer.has_own_split)
    scene = scene._replace(is_prediction=True)
    hints = _hints_on_gradients(Stage.PREDICT, error)
    if model is not None:
        return _told(scene, "In summary()", [*hints, *_hints_on_devices(error)])
    if batch_y is None and not isinstance(batch_x, Mapping) and len(batch_x) > 1:
        hints.append("If the last input is the target, give with_targets=True.")
    where = f"In {PassName(Stage.PREDICT).batch(batch_idx)}"
    return _told(scene, where, [*hints, *_hints_on_devices(error)])


def _told(scene: Scene, where: str, hints: Iterable[str]) -> Exception:
    error = scene.error
    try:
        scene = look_at(scene)
        found = next((found for fault in FAULTS if (found := fault(scene)) is not None), None)
    except Exception:  # the error itself is on its way, which matters more
        found = None
    where = f"{where}: {_given(scene)}."
    if found is None:
        if getattr(scene.model, "_compiled_call_impl", None) is not None:
            hints = [*hints, "Without compile_model=True such an error says which layer it is of."]
        for note in (where, *hints):
            add_note(error, note)
        return _raised_anew(error)
    said = str(error)
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
    said = f"It was raised as {type(error).__name__}: {said}"
    told = step_error("\n".join([*found, where, *hints, said]), type(error))
    for note in getattr(error, "__notes__", ()):
        add_note(told, note)
    told.__suppress_context__ = True
    return told.with_traceback(users_frames(error.__traceback__))


def _given(scene: Scene) -> str:
    """Say what a step was given, and what it has given to the loss."""
    parts = [f"batch_x is {brief(scene.batch_x)}", f"batch_y is {brief(scene.batch_y)}"]
    if scene.given is not None:
        parts.append(f"model_out is {brief(scene.given[0])}")
    if scene.loss_fn is default_loss:
        has_parts = isinstance(scene.batch_x, (list, tuple)) and len(scene.batch_x) > 1
        how = ": with Trainer(model, loss) its last part is batch_y" if has_parts else ""
        parts.append(f"and there is no loss function, so that the whole mini-batch is input{how}")
    return ", ".join(parts)


def _in_few_frames(error: Exception) -> Exception:
    """Give an error of this library without the frames that lead from a step to it."""
    if error.__cause__ is not None or error.__context__ is not None:
        return _raised_anew(error)
    return error.with_traceback(users_frames(error.__traceback__))


def _raised_anew(error: Exception) -> Exception:
    """Leave out the frame in which an error was caught: it comes again where this is raised."""
    caught = error.__traceback__
    return error if caught is None else error.with_traceback(caught.tb_next)


def _hints_on_gradients(stage: Stage, error: Exception) -> list[str]:
    if NO_GRADIENT not in str(error):
        return []
    return [
        f"Gradients are off in {stage}. Where you need them, call the model inside "
        "`with torch.enable_grad():`."
    ]


def _hints_on_devices(error: Exception) -> list[str]:
    if "device-side assert" in str(error):
        return [
            "On a GPU this is, most often, a label or a number for nn.Embedding that is out of "
            "range. With Trainer(device='cpu') the message says which."
        ]
    return []
