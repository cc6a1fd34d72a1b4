"""Shows which classes a model confuses, and its worst or best samples.

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

import heapq
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..arguments import check_choice, check_count
from ..errors import ConfigError, DataError, MetricError, warn_user
from ..nest.operations import describe, map_tensors
from ..patches import ConfusionPatch
from ..patches.resumed import merge_patches
from ..show.figures import can_show, draw_samples, figure_to_array, is_inline
from ..show.plots import confusion_figure, plot_confusion
from ..stages import Stage
from .event_files import EventFileCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..contracts import TrainerView
    from ..patches import PatchBase
    from ..runtime.base import Runtime

STAGES = ("train", "val", "test")

MAX_IMAGES = 24  # samples in TensorBoard's picture; more would be too small to see


class InterpretCallback(EventFileCallback):
    """Draws confusion matrices, and keeps the samples with the largest or smallest metric.

    TensorBoard gets a confusion matrix of each stage and epoch, as
    ``train_confusion_matrixes`` and ``val_confusion_matrixes`` (the step is the epoch, from 1) and
    ``test_confusion_matrix``. A test keeps ``k`` samples, and with ``image_data`` draws them as
    ``top_imgs``. The memory is that of ``k`` samples. Several processes give the same results
    as one: each sample counts once, and ``k`` samples of all processes are kept.

    Args:
        metric: unreduced, ``(outputs, targets) -> [N]``, for example
            ``nn.CrossEntropyLoss(reduction='none')``; ``None`` keeps no samples.
        k: the number of samples.
        mode: ``'max'`` keeps the largest values, ``'min'`` the smallest. NaN is larger than all.
        stages: the stages that get confusion matrices.
        class_num: the number of classes; ``None``: the number of output columns (one column of
            probabilities means two classes), or found from the ids if the outputs are ids.
        log_dir: the folder of the runs.
        image_data: the inputs are images ``[C, H, W]``, ``[H, W]`` or ``[H, W, C]``.
        class_names: names of the classes in figures; ``None``: their numbers.

    Attributes:
        matrices: the latest confusion matrix ``[C, C]`` of each stage; rows are true classes.

    Raises:
        ConfigError: an argument has a wrong value.
        MetricError: in a test, the metric does not return one number for each sample.
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
        self.matrices: dict[Stage, Tensor] = {}
        self._latest: Stage | None = None
        # Counts of unfinished passes: of this process, and of all processes up to the checkpoint
        # that the run was resumed from.
        self._own: dict[str, PatchBase] = {}
        self._earlier: dict[str, PatchBase] = {}
        self._runtime: Runtime | None = None
        self._is_off = False
        self._top = TopSamples(k, mode)

    @property
    def confusion_matrix(self) -> Tensor | None:
        """The confusion matrix of the latest stage, or ``None``."""
        return None if self._latest is None else self.matrices[self._latest]

    def top_samples(self) -> list[list[Any]]:
        """Return ``[value, output, target, input]`` of each sample, the most extreme first.

        Equal values are in the order of the data. Tensors are on the CPU, without the batch
        dimension. Several inputs are a tuple.
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
            class_names: names of the classes; ``None``: those of the callback.
            cmap: a matplotlib colour map.
            title_info: the title.
            show: show the figure if there is a display; a notebook shows it once, below the cell.

        Raises:
            DataError: there is no confusion matrix yet.
        """
        matrix = self.confusion_matrix
        if matrix is None:
            raise DataError("There is no confusion matrix yet: run fit() or test() before.")
        names = self.class_names if class_names is None else class_names
        if show and can_show():
            import matplotlib.pyplot as plt

            figure: Figure = plot_confusion(matrix, len(matrix), names, 0, cmap, title_info)
            if not is_inline():
                plt.show()
            return figure
        return confusion_figure(matrix, names, 0, cmap, title_info)

    def plot_top(self, max_num: int = MAX_IMAGES) -> Figure:
        """Draw the samples, which must be images, with value, prediction and target.

        Raises:
            DataError: there are no samples, or the inputs are not images.
        """
        return draw_samples(self.top_samples()[:max_num], self.class_names, in_cell=True)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        self._runtime = trainer.runtime
        super().on_before_fit(trainer, epochs)

    def on_before_train_epochs(self, **others: Any) -> None:
        self._forget(Stage.TRAIN)

    def on_before_val_epochs(self, **others: Any) -> None:
        self._forget(Stage.VAL)

    def on_before_test_epochs(self, trainer: TrainerView, **others: Any) -> None:
        self._runtime = trainer.runtime
        self._forget(Stage.TEST)
        self._top.clear()

    def on_train_metrics(self, trainer: TrainerView, **others: Any) -> None:
        self._count(trainer, **others)

    on_val_metrics = on_train_metrics

    def on_test_metrics(
        self, trainer: TrainerView, model_out: Any, batch_y: Any, **others: Any
    ) -> None:
        """Count the predictions, and keep the most extreme samples."""
        self._count(trainer, model_out, batch_y)
        run = trainer.run
        if self.metric is not None and run is not None and not run.is_filler:
            values = self.metric(model_out, batch_y)
            if not isinstance(values, Tensor) or values.ndim != 1:
                raise MetricError(
                    f"InterpretCallback: the metric gave {describe(values)} for a mini-batch; it "
                    "must give one number for each sample, [N]: use reduction='none', and flatten."
                )
            place = (run.task_idx, run.batch_idx, trainer.runtime.rank)
            self._top.add(values.detach(), model_out, batch_y, run.batch_x, place)

    def on_after_train_epochs(self, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        self._finish(trainer, Stage.TRAIN, "train_confusion_matrixes", epoch_idx + 1)

    def on_after_val_epochs(self, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        self._finish(trainer, Stage.VAL, "val_confusion_matrixes", epoch_idx + 1)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        self._finish(trainer, Stage.TEST, "test_confusion_matrix", trainer.init_epoch)
        self._top.join(trainer.runtime.gather_objects(self._top))
        if self.image_data and trainer.main_process and len(self._top):
            try:
                figure = draw_samples(self.top_samples()[:MAX_IMAGES], self.class_names)
                pixels = figure_to_array(figure)
            except DataError as error:
                warn_user(f"InterpretCallback: {error}", RuntimeWarning)
            else:
                writer = self.writer(trainer)
                writer.add_image("top_imgs", pixels, trainer.init_epoch, dataformats="HWC")
        super().on_after_test_epochs(trainer, tasks, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of all processes, and the sizes of the event files."""
        counts = {str(stage): patch() for stage, patch in self._totals(self.stages).items()}
        return {**super().state_dict(), "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._own, self._earlier = {}, {}
        for stage, counts in state["counts"].items():
            self._earlier[stage] = self._new_patch()
            self._earlier[stage].load_state_dict({"matrix": counts})

    def _new_patch(self) -> ConfusionPatch:
        return ConfusionPatch(whole_matrix, num_classes=self.class_num)

    def _forget(self, stage: Stage) -> None:
        """Drop the counts of a stage."""
        self._own.pop(stage, None)
        self._earlier.pop(stage, None)

    def _totals(self, stages: Iterable[Stage]) -> dict[str, PatchBase]:
        """Return the counts of all processes, which must all call this at the same time."""
        totals = {str(stage): self._own[stage] for stage in stages if stage in self._own}
        if self._runtime is not None:
            makers = dict.fromkeys(STAGES, self._new_patch)
            totals = merge_patches(self._runtime.gather_objects, totals, makers, {})
        for stage in stages:
            if stage in self._earlier:
                totals[stage] = self._earlier[stage] + totals.get(stage, 0)
        return totals

    def _count(self, trainer: TrainerView, model_out: Any, batch_y: Any, **others: Any) -> None:
        run = trainer.run
        if self._is_off or run is None or run.stage not in self.stages or run.is_filler:
            return
        try:
            patch = self._new_patch().load(model_out, batch_y)
        except MetricError as error:
            if self.class_num is not None:
                raise
            self._is_off = True
            warn_user(
                f"InterpretCallback draws no confusion matrix: {error} stages=() turns it off.",
                UserWarning,
            )
        else:
            own = self._own.get(run.stage)
            self._own[run.stage] = patch if own is None else own.add(patch)

    def _finish(self, trainer: TrainerView, stage: Stage, tag: str, step: int) -> None:
        if stage not in self.stages:
            return
        self._is_off = trainer.runtime.any(self._is_off)
        total = self._totals([stage]).get(stage)
        self._forget(stage)
        if self._is_off or total is None:
            return
        self._latest, self.matrices[stage] = stage, total().cpu()
        if trainer.main_process:
            title = f"{stage}, epoch {step}" if stage is not Stage.TEST else "test"
            figure = confusion_figure(self.matrices[stage], self.class_names, title=title)
            pixels = figure_to_array(figure)
            self.writer(trainer).add_image(tag, pixels, step, dataformats="HWC")


def whole_matrix(matrix: Tensor) -> Tensor:
    """The metric of the patches: the confusion matrix itself."""
    return matrix


InterpreteCallback = InterpretCallback
"""The name of `InterpretCallback` in release 0.6."""


class TopSamples:
    """Keeps the ``k`` samples with the most extreme values; of equal values the earlier ones."""

    def __init__(self, k: int, mode: str = "max") -> None:
        self.k = k
        self._sign = 1.0 if mode == "max" else -1.0
        # The first entry of the heap is the next to be dropped. An entry has the key, the
        # negative place in the data, and the sample.
        self._heap: list[tuple[float, tuple[int, ...], list[Any]]] = []
        self._num_seen = 0

    def __len__(self) -> int:
        return len(self._heap)

    def clear(self) -> None:
        """Drop all samples."""
        self._heap = []
        self._num_seen = 0

    def add(
        self,
        values: Tensor,
        model_out: Any,
        batch_y: Any,
        batch_x: Any,
        place: tuple[int, ...] = (),
    ) -> None:
        """Add a mini-batch with one value for each sample, ``[N]``.

        ``place`` orders the mini-batches of several processes. Reading the values waits for an
        accelerator; only samples that are kept are copied.
        """
        bare_x = batch_x[0] if isinstance(batch_x, tuple) and len(batch_x) == 1 else batch_x
        for index, value in enumerate(values.tolist()):
            order = (*(-number for number in place), -(self._num_seen + index))
            key = self._sign * (math.inf if math.isnan(value) else value)
            if len(self._heap) == self.k and (key, order) <= self._heap[0][:2]:
                continue
            parts = [pick(part, index, len(values)) for part in (model_out, batch_y, bare_x)]
            entry = (key, order, [value, *parts])
            if len(self._heap) < self.k:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heapreplace(self._heap, entry)
        self._num_seen += len(values)

    def join(self, parts: Iterable[TopSamples]) -> None:
        """Keep the most extreme samples of several processes."""
        entries = [entry for part in parts for entry in part._heap]
        self._heap = sorted(entries, key=lambda entry: entry[:2])[-self.k :]

    def samples(self) -> list[list[Any]]:
        """Return ``[value, output, target, input]`` of each sample, the most extreme first."""
        ranked = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [list(sample) for _, _, sample in ranked]


def pick(nest: Any, index: int, num: int) -> Any:
    """Copy one sample of a mini-batch of ``num`` samples to the CPU."""

    def one(tensor: Tensor) -> Tensor:
        has_samples = tensor.ndim > 0 and len(tensor) == num
        return (tensor[index] if has_samples else tensor).detach().cpu().clone()

    return map_tensors(one, nest)
