"""Every exception the library raises, in one tree.

Each class also inherits the built-in that a user would expect, so both
``except DeepEpochsError`` and ``except ValueError`` work::

    DeepEpochsError
    ├── LoopException                        the loop cannot start or continue
    │   ├── ConfigError (ValueError)         an argument that cannot be right
    │   │   └── ConfigTypeError (TypeError)  an argument of the wrong type
    │   ├── DataError (ValueError)           a loader or a mini-batch
    │   ├── StepError (TypeError)            what a step did, was given or returned
    │   ├── MetricError (ValueError)         a metric or its name
    │   ├── ArgumentsChanged (ValueError)    a metric that changes its arguments in place
    │   ├── PatchError (TypeError)           a patch that does not fit
    │   ├── NotFiniteError (ArithmeticError) a loss that is NaN or infinite
    │   └── NotBoundError (RuntimeError, AttributeError)  outside of a trainer or a pass
    ├── CallbackException                    an error of a callback
    │   └── HookError (TypeError)            a hook's name or signature
    ├── CheckpointError (RuntimeError)       saving or loading state
    │   ├── CheckpointNotFound (FileNotFoundError)
    │   ├── CheckpointDamaged                torn, altered, or not a checkpoint
    │   ├── CheckpointMismatch (ValueError)  whole, but of another model or schema
    │   └── RunLockedError                   the run's folder is in use
    ├── MetricNotFound (KeyError)            a history or results without such a name
    └── MissingExtraError (ImportError)      an optional package is not installed

    StopLoopException                        no error: stops the loop

>>> from deepepochs.errors import ConfigError, LoopException
>>> issubclass(ConfigError, LoopException) and issubclass(ConfigError, ValueError)
True
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import Any


class DeepEpochsError(Exception):
    """The root of the library's errors."""


class LoopException(DeepEpochsError):
    """The loop cannot start or cannot continue."""


class ConfigError(LoopException, ValueError):
    """An argument that cannot be right."""


class ConfigTypeError(ConfigError, TypeError):
    """An argument of the wrong type."""


class DataError(LoopException, ValueError):
    """A loader or a mini-batch that cannot be trained on."""


class StepError(LoopException, TypeError):
    """A step that did or returned something a step may not, or whose mini-batch does not fit.

    Where PyTorch has raised an error, it is caught as the class of that as well: see `step_error`.
    """


class MetricError(LoopException, ValueError):
    """A metric that cannot be computed, or two metrics with one name."""


class ArgumentsChanged(LoopException, ValueError):
    """A metric that has changed its arguments in place, which others are to get as well."""


class PatchError(LoopException, TypeError):
    """A patch that cannot be loaded, added or computed."""


class NotFiniteError(LoopException, ArithmeticError):
    """A loss that is NaN or infinite."""


class NotBoundError(LoopException, RuntimeError, AttributeError):
    """A task was used outside of a trainer, or a verb of a step outside of a pass.

    It is an `AttributeError`, too, so that `hasattr` and `inspect.getmembers` can ask.
    """


class CallbackException(DeepEpochsError):
    """An error of a callback."""


class HookError(CallbackException, TypeError):
    """A hook whose name or signature fits no event."""


class CheckpointError(DeepEpochsError, RuntimeError):
    """State that could not be saved or loaded."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """There is no checkpoint at the given path."""


class CheckpointDamaged(CheckpointError):
    """The file is torn, altered, or not a checkpoint."""


class CheckpointMismatch(CheckpointError, ValueError):
    """The checkpoint is whole, but of another model, optimizer or schema."""


class RunLockedError(CheckpointError):
    """Another process uses the folder of this run."""


class MetricNotFound(DeepEpochsError, KeyError):
    """A history or the results of a test have no such name; the message lists those they have."""

    __str__ = Exception.__str__  # that of KeyError shows quotes around the message


class MissingExtraError(DeepEpochsError, ImportError):
    """An optional package is not installed; the message names the extra to install."""


class StopLoopException(Exception):
    """Ends the fit when a hook or a step raises it, as ``trainer.stop(reason)`` does."""


def step_error(text: str, cause: type[Exception]) -> StepError:
    """Make a ``StepError`` that ``except`` also catches as the class of its cause.

    This is a built-in class, or one of PyTorch's such as ``torch.OutOfMemoryError``.

    >>> error = step_error("The labels are float32.", RuntimeError)
    >>> type(error).__name__, isinstance(error, StepError), isinstance(error, RuntimeError)
    ('StepError', True, True)
    """
    kinds = (RuntimeError, ValueError, IndexError, AttributeError, AssertionError)
    builtin = next((kind for kind in kinds if issubclass(cause, kind)), None)
    kind: Any = cause if cause.__module__ == "torch" else builtin
    return StepError(text) if kind is None else _step_error_class(kind)(text)


@cache
def _step_error_class(kind: Any) -> type[StepError]:
    def __reduce__(self: StepError) -> Any:  # a class that is made here cannot be found by name
        return step_error, (str(self), kind), vars(self) or None

    members = {"__module__": __name__, "__doc__": StepError.__doc__, "__reduce__": __reduce__}
    return type("StepError", (StepError, kind), members)


def add_note(error: Any, note: str) -> None:
    """Add a note below the error's message; its ``args`` and ``repr`` stay what they are.

    Python 3.10 shows no notes: there they are printed below the traceback of an error that
    nothing catches.
    """
    if hasattr(error, "add_note"):
        error.add_note(note)
        return
    error.__notes__ = [*getattr(error, "__notes__", []), note]
    _print_notes()


@cache
def _print_notes() -> None:
    """Have the notes of an error that nothing catches printed below its traceback."""
    print_error = sys.excepthook

    def print_with_notes(kind: Any, error: BaseException, traceback: Any) -> None:
        print_error(kind, error, traceback)
        sys.stderr.write("".join(f"{note}\n" for note in getattr(error, "__notes__", ())))

    sys.excepthook = print_with_notes


def warn_user(text: str, category: type[Warning], *, once: bool = False) -> None:
    """Warn at the line of the user's code that the call came from.

    Args:
        text: the message, whose first two lines name the problem and the remedy.
        category: the class of the warning.
        once: Python's filters may show the text once for each line, as they do for
            ``warnings.warn``. By default nothing is remembered: a text that differs each time,
            such as one with the number of a mini-batch, would be kept for ever.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(str(frame.f_globals.get("__name__"))):
        frame = frame.f_back
    module = frame.f_globals.get("__name__")
    told = frame.f_globals.setdefault("__warningregistry__", {}) if once else None
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, module, told)


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in (__package__, "contextlib", "torch")
