"""The function of one pass: training or validation of one task, over its mini-batches."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from ..fit.plan import FitPlan
from ..stages import Stage
from ..steps import Steps, is_default, resolve_step
from ..task import EpochTask
from .batch_text import BatchText, Walk
from .between import Between
from .callbacks import Frozen
from .gaps import Names, place_of
from .layout import INDENT, folded
from .look import sample_of
from .parts import Parts, identifier
from .source import bound_names, literal, names_read
from .steps import VERBS, StepWriter
from .sums import PassMetrics, Sums
from .updates import Updates

NUM_STEPS = "trainer.progress.num_steps"


class Pass:
    """A pass that is to be written.

    Attributes:
        name: of its function.
        stage: training or validation.
        task: what it goes over.
        label: of the task, where the stage has several; else ``''``.
        has_loss: whether it computes a loss.
        step: what handles a mini-batch.
        writer: writes the step; ``None``: it is the library's.
    """

    def __init__(
        self, parts: Parts, plan: FitPlan, stage: Stage, task: EpochTask, loader: str
    ) -> None:
        self.parts, self.stage, self.task, self.loader = parts, stage, task, loader
        self.planned = plan.metrics_of(stage, task)
        self.has_loss = stage is Stage.TRAIN or task.do_loss
        tasks = plan.tasks[stage]
        self.label = plan.labels[stage][tasks.index(task)] if len(tasks) > 1 else ""
        self.step = resolve_step(task, parts.trainer, stage)
        self.writer = None if is_default(self.step) else StepWriter(self.step, parts)
        wanted = "train_epoch" if stage is Stage.TRAIN else "validate"
        self.name = parts.names.free(f"{wanted}_{identifier(self.label)}" if self.label else wanted)

    @property
    def assigned(self) -> set[str]:
        """The names that a step of the user's sets."""
        return set() if self.writer is None else self.writer.assigned

    @property
    def reads_steps(self) -> bool:
        """Whether a step of the user's reads the number of optimizer steps."""
        return self.writer is not None and NUM_STEPS in self.writer.source.text

    def write(self, between: Between, frozen: Frozen, epoch: str) -> list[str]:
        """Write the function; ``epoch`` is the name of the number of the epoch."""
        return PassWriter(self, between, frozen, epoch).lines()


class PassWriter:
    """Writes the function of a pass; it is also what the verbs of a step do there, as lines of code.

    Attributes:
        model: the expression by which the step calls the model.
        has_loss: whether the pass computes a loss.
        has_metrics: whether something is done with the outputs of a mini-batch.
        names: those of the function.
    """

    def __init__(self, one: Pass, between: Between, frozen: Frozen, epoch: str) -> None:
        self._pass, self._parts = one, one.parts
        self._between, self._frozen, self._epoch = between, frozen, epoch
        parts, trainer = one.parts, one.parts.trainer
        self._is_training = one.stage is Stage.TRAIN
        self.has_loss = one.has_loss
        self.has_metrics = bool(one.planned or parts.hooks(f"on_{one.stage}_metrics"))
        self._net = parts.model if self._is_training else parts.averaged or parts.model
        sample = sample_of(trainer, one.task.dataloader, one.task.targets)
        self.model = parts.call(self._net, sample.out)
        self._writer = one.writer
        self.names = Names(self._taken())
        given = None if self._writer is None else self._writer.inputs
        self._batch = BatchText(parts, one.task, sample, self.names, given)
        length = trainer.limits.num_batches(one.stage, one.task.length)
        self._sums = Sums(self.names, is_single=length == 1 and not one.label)
        self._walk = Walk(parts, one.stage, one.task, one.loader, self.names)
        self._updates = Updates(parts, self._walk, self._sums, between, self.names)
        out = sample.out if one.writer is None else None
        self._metrics = PassMetrics(parts, self._batch, self._sums, self.names, out, one.planned)

    def _taken(self) -> set[str]:
        """The names that the function reads of the module, and those in the user's step."""
        parts = self._parts
        texts = [self._net, self.model, parts.model, parts.loss, parts.averaged]
        texts += [*parts.opts, *parts.schedulers, self._pass.loader]
        taken = {name for text in texts if text for name in names_read(ast.parse(text))}
        own = set() if self._writer is None else self._writer.own_names
        taken |= {*own, *self._between.names, self._epoch, "torch", "islice", "layer"}
        return taken | ({"device"} if parts.moves else set())

    def lines(self) -> list[str]:
        """The lines of the function."""
        stage, hooks, batch = self._pass.stage, self._parts.hooks, self._batch
        step, ending = self._step(), self.ending()
        self._sums.end(self._metrics.used)
        weigh = self._sums.weigh(batch.weight, always=self._walk.size > 1)
        moves = self._parts.moves and self._parts.trainer.moves_data(stage)
        loop = [
            *(self._between.before_batch(is_plain=self._is_plain) if self._is_training else []),
            *(batch.moves() if moves else []),
            *batch.splits,
            *hooks(f"on_before_{stage}_batch", f"on_before_{stage}_forward"),
            *self._own_split(),
            *weigh,
            *self._walk.open(self._sums.weight),
            *self._sums.counted(step),
            *hooks(f"on_after_{stage}_batch"),
            *ending,
        ]
        body = [
            *(self._between.opening() if self._is_training else []),
            *hooks(f"on_before_{stage}_epoch"),
            *([] if self._is_training else self._averages()),
            *self._parts.modes(self._net, training=self._is_training),
            *([*self._frozen.weights, *self._frozen.modes] if self._is_training else []),
            *self._sums.start,
            self._walk.header(batch.header),
            *(INDENT + line for line in loop),
            *self._walk.left_over,
            *self._sums.ending,
            *hooks(f"on_after_{stage}_epoch"),
            *self._returned(),
        ]
        head = [] if self._is_training else ["@torch.no_grad()"]
        return [*head, f"def {self._pass.name}():", *(INDENT + line for line in body)]

    def _averages(self) -> list[str]:
        """The lines for an average of weights that does not follow each step."""
        parts, average = self._parts, self._parts.averaged
        if not average or parts.trainer.ema.settings.every == 1:
            return []
        lines = []
        if not self._between.averages_in_time:
            lines += [
                f"if {average}.n_averaged == 0:  # there is no average yet",
                f"    {average}.module.load_state_dict({parts.model}.state_dict())",
            ]
        if not parts.trainer.ema.settings.buffers and [*parts.trainer.model.buffers()]:
            pairs = f"zip({average}.module.buffers(), {parts.model}.buffers(), strict=True)"
            lines += [f"for kept, buffer in {pairs}:", f"{INDENT}kept.copy_(buffer)"]
        return lines

    def _returned(self) -> list[str]:
        entries, sums, label = self._sums.results, self._sums, self._pass.label
        if not label:
            return folded("return {", entries, "}", len(INDENT))
        # Those of several tasks are pooled.
        totals = f", {sums.total}, {sums.loss_count}" if sums.has_loss else ", 0.0, 0"
        prefixed = [f'"{label}/{one[1:]}' if one.startswith('"') else one for one in entries]
        return folded("return {", prefixed, f"}}{totals}", len(INDENT))

    # --- the step

    @property
    def _is_plain(self) -> bool:
        """Whether each mini-batch makes one optimizer step."""
        return self._writer is None and self._walk.size == 1

    @property
    def _is_sure(self) -> bool:
        """Whether each mini-batch comes to the line that is written, and once."""
        return self._writer is None or self._writer.is_sure

    def ending(self) -> list[str]:
        """The lines that end a mini-batch."""
        if not self._is_training:
            return []
        task, walk = self._pass.task, self._walk
        return self._between.after_batch(task, walk, self._epoch, is_plain=self._is_plain)

    def _own_split(self) -> list[str]:
        """A comment for a ``prepare_data`` of the user's."""
        trainer = self._parts.trainer
        if not trainer.has_own_split:
            return []
        method = type(trainer).prepare_data
        what = f"{type(trainer).__name__}.prepare_data{place_of(method)}"
        return [self._parts.gaps.not_written(what)]

    def _step(self) -> list[str]:
        writer, y = self._writer, self._batch.y
        if writer is None:
            return self._default()
        lines = writer.write(self._pass.task.step_args, self)
        missing = writer.inputs[1] if y == "None" and writer.inputs[1] in writer.own_names else ""
        return [f"{missing} = None", *lines] if missing in writer.read_names else lines

    def _default(self) -> list[str]:
        out, loss = self.names.free("out", "batch_out"), self.names.free("loss", "batch_loss")
        lines = [f"{out} = {self.model}({self._batch.inputs})"]
        lines += self._parts.hooks(f"on_after_{self._pass.stage}_forward")
        if self.has_loss:
            lines.append(f"{loss} = {self.loss(out, self._batch.y)}")
            lines += self.backward(loss, "")
        if self.has_loss and self._is_training and self._parts.trainer.opt[0].needs_closure:
            lines = self.with_closure(None, lines, [out, loss])
        elif self.has_loss:
            lines += self.optimize(None)
        lines = [*self._overridden(), *lines, *(self.record_loss(loss) if self.has_loss else [])]
        return lines + self.record_metrics(out, self._batch.y)

    def _overridden(self) -> list[str]:
        """Comments for verbs of the user's own that the default step calls."""
        lines = []
        for verb in VERBS:
            for kind in (type(self._pass.task), type(self._parts.trainer)):
                if (own := getattr(kind, verb)) is not getattr(Steps, verb):
                    what = f"{kind.__name__}.{verb}{place_of(own)}"
                    lines.append(self._parts.gaps.not_written(what))
        return lines

    # --- what a step reads

    def known(self, name: str) -> str:
        """The expression of an attribute that every step's object has; ``''``: it is another."""
        weight, parts = self._sums.weight, self._parts
        name = name.removeprefix("trainer.")
        if name == "run.batch_idx":
            self._walk.need_index()
        if name in ("current_batch_size", "run.weight"):
            self._sums.need_weight()
        optimizers = {f"opt[{index}]": opt for index, opt in enumerate(parts.opts)}
        return {
            **optimizers,
            "model": self._net,
            "loss_fn": parts.loss,
            "current_batch_size": weight,
            "run.weight": weight,
            "run.batch_idx": self._walk.index,
            "init_epoch": self._epoch,
            "progress.epoch_idx": self._epoch,
            NUM_STEPS.removeprefix("trainer."): self._between.steps,
            "stage": f'"{self._pass.stage}"',
            "step_args": literal(self._pass.task.step_args),
            "device": "device" if parts.moves else f'torch.device("{parts.trainer.device}")',
        }.get(name, "")

    # --- what the verbs do

    def loss(self, out: str, y: str) -> str:
        """The expression of the loss."""
        if self._parts.loss:
            return f"{self._parts.loss}({out}, {y})"
        return f'{out}["loss"]' if isinstance(self._batch.sample.out, Mapping) else out

    def backward(self, loss: str, share: str) -> list[str]:
        """The backward pass of a loss, with its share of the mini-batch."""
        if not self._is_training:
            return []
        return [*self._window_gap(), *self._updates.backward(loss, share)]

    def optimize(self, index: int | None) -> list[str]:
        """The step of an optimizer, or of all."""
        if not self._is_training:
            return []
        return [*self._window_gap(), *self._updates.optimize(index)]

    def _window_gap(self) -> list[str]:
        """A comment where some mini-batches of a window may do without what is written."""
        if self._walk.size == 1 or self._writer is None or self._writer.is_reached:
            return []
        what = "mini-batches without this, which grad_accumulate leaves out of their window"
        return [self._parts.gaps.not_written(what)]

    def with_closure(
        self, index: int | None, inner: Sequence[str], found: Sequence[str]
    ) -> list[str]:
        """The step of an optimizer that calls these lines, and leaves outputs and loss."""
        if not self._is_training:
            return [*inner]
        code = ast.parse("\n".join(inner))
        read = names_read(code) - bound_names(code)
        return self._updates.with_closure(index, inner, found, sorted(read & self._of_batch))

    @property
    def _of_batch(self) -> set[str]:
        """The names that each mini-batch sets anew before its step."""
        header = {one.strip(" *") for one in self._batch.header.split(",")}
        names = {*header, self._batch.y, self._walk.index, self._sums.weight}
        return names if self._writer is None else names | self._writer.assigned

    def record_loss(self, loss: str) -> list[str]:
        """The sum of the losses."""
        return self._sums.add("loss", f"{loss}.item()", is_sure=self._is_sure)

    def record(self, name: str, value: str, how: str) -> list[str]:
        """What a step records or returns."""
        return self._sums.record(name, value, how, is_sure=self._is_sure)

    def is_weight(self, text: str) -> bool:
        """Whether an expression gives what the mini-batch weighs."""
        return text == self._sums.weight or text in self._batch.sizes

    def record_metrics(self, out: str, y: str) -> list[str]:
        """The sums of the metrics."""
        hooks = self._parts.hooks(f"on_{self._pass.stage}_metrics")
        return [*self._metrics.lines(out, y, is_sure=self._is_sure), *hooks]
