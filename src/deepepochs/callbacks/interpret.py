"""What the model confuses, and the samples it does worst or best on.

::

    worst = InterpretCallback(nn.CrossEntropyLoss(reduction="none"), k=9, image_data=True)
    trainer = Trainer(model, F.cross_entropy, opt, callbacks=worst)
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)
    worst.plot_confusion()
    for value, output, target, image in worst.top_samples():
        ...
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..arguments import check_choice, check_count
from ..errors import ConfigError, DataError, MetricError
from ..nest.operations import describe
from ..stages import Stage
from .confusion_counts import ConfusionCounts
from .confusion_picture import confusion_figure, confusion_picture
from .event_files import EventFileCallback, can_show, figure_to_array
from .top_samples import TopSamples, draw_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..contracts import TrainerView

__all__ = ["InterpretCallback", "InterpreteCallback"]

STAGES = ("train", "val", "test")

MAX_IMAGES = 24
"""Samples shown in TensorBoard's picture; of more nothing could be seen."""


class InterpretCallback(EventFileCallback):
    """Draws confusion matrices, and keeps the samples with the largest or smallest metric.

    A confusion matrix for each stage and epoch goes to TensorBoard as
    ``train_confusion_matrixes`` and ``val_confusion_matrixes`` (numbered by epoch, from 1) and
    ``test_confusion_matrix``. In a test the ``k`` samples are kept, and with ``image_data``
    drawn as ``top_imgs``. It only watches, and needs memory for ``k`` samples.

    Args:
        metric: unreduced, ``(outputs, targets) -> [N]``, for example
            ``nn.CrossEntropyLoss(reduction='none')``; ``None`` keeps no samples.
        k: how many samples.
        mode: ``'max'`` keeps the largest values, ``'min'`` the smallest. NaN is larger than all.
        stages: the stages that get confusion matrices.
        class_num: how many classes; ``None``: from the outputs (their columns; one column of
            probabilities is two classes), or from the ids where they are ids.
        log_dir: the folder of the runs.
        image_data: the inputs are images ``[C, H, W]``, ``[H, W]`` or ``[H, W, C]``.
        class_names: what to call the classes in figures; ``None``: their numbers.

    Attributes:
        matrices: the latest confusion matrix ``[C, C]`` of each stage, rows the true classes.

    Raises:
        ConfigError: an argument that cannot be right.
        MetricError: in a test, a metric that does not give one number for each sample.
    """

    def __init__(
        self,
        metric: Callable[[Any, Any], Tensor] | None = None,
        k: int = 100,
        mode: str = "max",
        stages: Sequence[str] = STAGES,
        class_num: int | None = None,
        log_dir: str | os.PathLike[str] = "./logs",
        image_data: bool = False,
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(log_dir)
        if metric is not None and not callable(metric):
            raise ConfigError(
                f"InterpretCallback(metric={metric!r}): give a function (outputs, targets) -> [N]."
            )
        check_count("k", k, 1)
        check_choice("mode", mode, ["max", "min"])
        listed = [stages] if isinstance(stages, str) else list(stages)
        self.stages = tuple(Stage(check_choice("stages", stage, STAGES)) for stage in listed)
        if class_num is not None:
            check_count("class_num", class_num, 2)
        self.metric = metric
        self.class_num = class_num
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.image_data = image_data
        self._counts = ConfusionCounts(class_num)
        self.matrices = self._counts.matrices
        self._is_off = False
        self._top = TopSamples(k, mode)

    @property
    def confusion_matrix(self) -> Tensor | None:
        """The confusion matrix of the latest stage; ``None`` where there is none."""
        return self._counts.latest

    def top_samples(self) -> list[list[Any]]:
        """``[value, output, target, input]`` of the kept samples, the most extreme first.

        Equal values come in the order of the data. Tensors are on the CPU and without the
        dimension of the mini-batch; several inputs come as a tuple.
        """
        return self._top.samples()

    top = top_samples

    def plot_confusion(
        self,
        class_names: Sequence[str] | None = None,
        cmap: str = "Blues",
        title_info: str = "",
        show: bool = True,
    ) -> Figure:
        """Draw the confusion matrix of the latest stage.

        Args:
            class_names: what to call the classes; ``None``: as told to the callback.
            cmap: a colour map of matplotlib.
            title_info: the title.
            show: show it, where there is a display.

        Raises:
            DataError: there is no confusion matrix yet.
        """
        matrix = self.confusion_matrix
        if matrix is None:
            raise DataError("There is no confusion matrix yet: run fit() or test() before.")
        names = self.class_names if class_names is None else class_names
        if show and can_show():
            import matplotlib.pyplot as plt

            figure = confusion_figure(matrix, names, cmap, title_info, make=plt.figure)
            plt.show()
            return figure
        return confusion_figure(matrix, names, cmap, title_info)

    def plot_top(self, max_num: int = MAX_IMAGES) -> Figure:
        """Draw the kept samples, which are images, with value, prediction and target.

        Raises:
            DataError: no sample was kept, or the inputs are no images.
        """
        return draw_samples(self.top_samples()[:max_num], self.class_names)

    def on_before_train_epochs(self, **others: Any) -> None:
        """Begin the matrix of the epoch."""
        self._counts.begin(Stage.TRAIN)

    def on_before_val_epochs(self, **others: Any) -> None:
        """Begin the matrix of the epoch."""
        self._counts.begin(Stage.VAL)

    def on_before_test_epochs(self, **others: Any) -> None:
        """Begin the matrix and the samples of the test."""
        self._counts.begin(Stage.TEST)
        self._top.clear()

    def on_train_metrics(self, model_out: Any, batch_y: Any, **others: Any) -> None:
        """Count the predictions of the mini-batch."""
        self._count(Stage.TRAIN, model_out, batch_y)

    def on_val_metrics(self, model_out: Any, batch_y: Any, **others: Any) -> None:
        """Count the predictions of the mini-batch."""
        self._count(Stage.VAL, model_out, batch_y)

    def on_test_metrics(
        self, trainer: TrainerView, model_out: Any, batch_y: Any, **others: Any
    ) -> None:
        """Count the predictions of the mini-batch, and keep its most extreme samples."""
        self._count(Stage.TEST, model_out, batch_y)
        if self.metric is not None and trainer.run is not None:
            values = self.metric(model_out, batch_y)
            if not isinstance(values, Tensor) or values.ndim != 1:
                raise MetricError(
                    f"InterpretCallback: the metric gave {describe(values)} for a mini-batch, and "
                    "one number for each sample, [N], is needed: use reduction='none', and flatten."
                )
            self._top.add(values.detach(), model_out, batch_y, trainer.run.batch_x)

    def on_after_train_epochs(self, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        """Draw the matrix of the epoch."""
        self._finish(trainer, Stage.TRAIN, "train_confusion_matrixes", epoch_idx + 1)

    def on_after_val_epochs(self, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        """Draw the matrix of the epoch."""
        self._finish(trainer, Stage.VAL, "val_confusion_matrixes", epoch_idx + 1)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Draw the matrix of the test, and its samples."""
        self._finish(trainer, Stage.TEST, "test_confusion_matrix", trainer.init_epoch)
        if self.image_data and trainer.main_process and len(self._top):
            try:
                pixels = figure_to_array(self.plot_top())
            except DataError as error:
                warnings.warn(f"InterpretCallback: {error}", RuntimeWarning, stacklevel=2)
            else:
                writer = self.writer(trainer)
                writer.add_image("top_imgs", pixels, trainer.init_epoch, dataformats="HWC")
        super().on_after_test_epochs(trainer, tasks, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The counts of the stage that runs, beside the length of the event files."""
        return {**super().state_dict(), "counts": self._counts.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        super().load_state_dict(state)
        self._counts.load_state_dict(state["counts"])

    def _count(self, stage: Stage, model_out: Any, batch_y: Any) -> None:
        if self._is_off or stage not in self.stages:
            return
        try:
            self._counts.add(stage, model_out, batch_y)
        except MetricError as error:
            if self.class_num is not None:
                raise
            self._is_off = True
            warnings.warn(
                f"InterpretCallback draws no confusion matrix: {error} stages=() does without.",
                UserWarning,
                stacklevel=2,
            )

    def _finish(self, trainer: TrainerView, stage: Stage, tag: str, step: int) -> None:
        matrix = self._counts.finish(stage)
        if matrix is not None and trainer.main_process:
            title = f"{stage}, epoch {step}" if stage is not Stage.TEST else "test"
            pixels = confusion_picture(matrix, self.class_names, title)
            self.writer(trainer).add_image(tag, pixels, step, dataformats="HWC")


InterpreteCallback = InterpretCallback
"""The name of `InterpretCallback` in release 0.6."""
