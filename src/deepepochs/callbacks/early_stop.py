"""Stops a run that no longer improves, and writes no files.

::

    trainer = Trainer(model, loss, opt, callbacks=EarlyStopCallback("loss", patience=5))
    trainer.fit(train_dl, val_dl)
    trainer.stop_reason     # 'val loss was no better for 5 epochs (best 0.31 in epoch 12)'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..arguments import check_count
from .base import Callback, Metrics
from .monitored import Improvement

if TYPE_CHECKING:
    from ..contracts import TrainerView


class EarlyStopCallback(Callback):
    """Stops the fit when a metric has not become better for some epochs.

    It keeps no weights and writes no files: the model has the weights of the last epoch. For the
    best ones give ``CheckCallback(..., patience=...)``, which stops in the same way, and call
    ``trainer.load_best()``. Where a ``CheckCallback`` is there, too, a resumed run goes on counting.

    Args:
        monitor: the metric: its name, with several tasks also that of one of them, as
            ``'night/accuracy'``.
        mode: ``'min'`` or ``'max'``: whether less or more is better. ``None``: as the metric
            declares, or as its name says.
        patience: stop after this many values in a row that were not better; at least 1.
        min_delta: a value is better if it differs from the best by more than this; at least 0.
        on_stage: ``'val'`` (checked only after a validation) or ``'train'``.

    Raises:
        ConfigError: an argument has a wrong value; at the start of a fit, ``mode`` is ``None``
            and nothing says which values of the metric are better.
        CallbackException: at the start of a fit or in the first mini-batch, the monitored metric
            is not there, or is not a single number.

    Example:
        >>> import torch
        >>> from deepepochs import Trainer
        >>> stop = EarlyStopCallback("loss", patience=2, on_stage="train")
        >>> model = torch.nn.Linear(2, 1)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.0)  # learns nothing
        >>> trainer = Trainer(model, torch.nn.MSELoss(), opt, callbacks=stop, console="off")
        >>> len(trainer.fit([(torch.ones(4, 2), torch.zeros(4, 1))])["train"]["loss"])
        3
        >>> trainer.stop_reason  # doctest: +ELLIPSIS
        'train loss was no better for 2 epochs (best ... in epoch 1)'
    """

    order = -1  # after what other callbacks record

    def __init__(
        self,
        monitor: str = "loss",
        mode: str | None = None,
        patience: int = 5,
        min_delta: float = 0.0,
        on_stage: str = "val",
    ) -> None:
        super().__init__()
        check_count("patience", patience, 1)
        self.improvement = Improvement(
            type(self).__name__, monitor, on_stage, mode, patience, min_delta
        )

    @property
    def decides_best(self) -> tuple[str, str, str]:
        improvement = self.improvement
        return improvement.on_stage, improvement.metric.name, improvement.watch.mode

    def check_fit(self, trainer: TrainerView, session: Any) -> None:
        """Raise if the fit does not compute the monitored metric, or its mode is not known."""
        self.improvement.check_fit(trainer, session)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        self.improvement.begin_fit(trainer)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.improvement.look(trainer, metrics)

    def on_after_val_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.improvement.look(trainer, metrics)

    def on_after_val_epochs(self, trainer: TrainerView, metrics: Metrics, **others: Any) -> None:
        """Check the monitored metric in a validation within an epoch, too."""
        self.improvement.check_within(trainer, metrics)

    def on_after_epoch(self, *, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        """Check the monitored metric, and stop if the patience is exhausted."""
        self.improvement.check(trainer, others, is_part=epoch_idx in trainer.history.partial)

    def state_dict(self) -> dict[str, Any]:
        return self.improvement.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.improvement.load_state_dict(state)
