"""What goes wrong in a pass, and how it is told in the words of the user.

``explain`` begins where a step has raised: ``scene`` looks which call failed and with what, and
``losses``, ``layers``, ``calls`` and ``backward`` each know faults of one kind. ``first_batch``
tells what raises nothing, ``not_finite`` where a NaN comes from, ``returned`` what a step must
not return.
"""

from __future__ import annotations

from typing import Any


def explained(run: Any, error: Exception) -> Exception:
    """Give the error that is to be raised for one of a step; see ``explain.explained``."""
    from .explain import explained  # a run without faults does not need it

    return explained(run, error)


def explained_prediction(
    trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int, error: Exception
) -> Exception:
    """Give the error that is to be raised for one of the model in ``predict``."""
    from .explain import explained_prediction

    return explained_prediction(trainer, batch_x, batch_y, batch_idx, error)


def note_loading(error: Exception) -> None:
    """Add to an error of a DataLoader what is wrong with its samples, if that is known."""
    from .loading import note_loading

    note_loading(error)
