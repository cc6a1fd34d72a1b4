"""The loop of epochs: passes, the best weights, schedules, and where callbacks are called."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.followed import walk
from ..fit.epochs import FitSpan
from ..fit.plan import FitPlan
from ..stages import Stage
from .between import Between
from .callbacks import Best, Frozen, left_out
from .layout import INDENT, folded
from .parts import Parts
from .passes import Pass
from .words import counted


class Epochs:
    """Writes the loop of epochs of a fit.

    Attributes:
        between: what is done within an epoch.
        frozen: the weights that are frozen.
        epoch: the name of the number of the epoch.
    """

    def __init__(self, parts: Parts, plan: FitPlan, span: FitSpan, passes: Sequence[Pass]) -> None:
        self.parts, self.plan, self.span, self.passes = parts, plan, span, passes
        self.has_val = bool(plan.tasks[Stage.VAL])
        assigned = set().union(*(one.assigned for one in passes))
        is_read = any(one.reads_steps for one in passes)
        self.between = Between(parts, plan, assigned, is_read=is_read)
        free = parts.names.free
        self.epoch, self.history = free("epoch"), free("history")
        self.frozen = Frozen(parts, self.epoch)
        self.values = {Stage.TRAIN: free("train"), Stage.VAL: free("val")}
        self._is_rare = self.has_val and plan.val_freq > 1
        may_lack = self._is_rare and not self.between.val_every
        self._best = Best(parts, plan, self.values, val_may_lack=may_lack)
        self._exhausted = [f"{name} >= {number}" for _, name, number in self._best.patiences]
        self.between.end_with([(name, n) for s, name, n in self._best.patiences if s is Stage.VAL])
        self._follows: list[str] = []
        if self.between.val_every:
            self._follows = [*self._best.each[Stage.VAL], *self._schedules(Stage.VAL)]
        self._follow = free("follow") if self._follows else ""

    def functions(self) -> list[list[str]]:
        """The functions that the loop and the passes call, where a validation has two places."""
        val = self.values[Stage.VAL]
        call = [f"{self._follow}({val})"] if self._follow else []
        of_val = [one for one in self.passes if one.stage is Stage.VAL]
        lines = self._passes(Stage.VAL, len(INDENT) * 2) if of_val else []
        loaders = [one.loader for one in of_val]
        follow: list[str] = []
        if self._follow:
            variables = ", ".join(self._best.sets[Stage.VAL])
            lines_of = [*([f"global {variables}"] if variables else []), *self._follows]
            follow = [f"def {self._follow}({val}):", *(INDENT + line for line in lines_of)]
        return [follow, self.between.function(val, lines, loaders, self.frozen.modes, call)]

    def lines(self) -> list[str]:
        """The lines of the loop."""
        hooks, best, between = self.parts.hooks, self._best, self.between
        body = [
            *dict.fromkeys(line for one in self.passes for line in self._told(one)),
            *hooks("on_before_epoch"),
            *self._train(),
            *(self._validate() if self.has_val else []),
            *best.each[Stage.TRAIN],
            *self._after_values(),
            *self._record(),
            *hooks("on_after_epoch"),
            *self._stop(),
        ]
        steps, validations = self.parts.trainer.fits.progress.num_steps, between.validations
        loop = [
            *self._notes(),
            *hooks("on_before_fit"),
            *([f"{between.steps} = {steps}"] if between.steps else []),
            *([f"{validations}: list[tuple[int, dict]] = []"] if validations else []),
            f"{self.history} = []",
            *best.start,
            *self._header(),
            *(INDENT + line for line in body),
            *hooks("on_after_fit"),
        ]
        if any(getattr(task.dataloader, "num_workers", 0) for task in self.plan.all_tasks()):
            # Where processes are spawned, each worker imports the script.
            return ['if __name__ == "__main__":', *(INDENT + line for line in loop)]
        return loop

    def _header(self) -> list[str]:
        """The lines that begin the loop."""
        start, end = self.span.start, self._end
        if self._is_open:
            return [
                f"{self.epoch} = {start}",
                f"while {self.between.steps} < {self.between.max_steps}:",
            ]
        return [f"for {self.epoch} in range({f'{start}, {end}' if start else end}):"]

    @property
    def _end(self) -> str:
        """The number of epochs, by the name that it has in the script."""
        named, end = self.parts.prelude.epochs, self.span.end
        return named if named and end == self.parts.trainer.max_epochs else str(end)

    @property
    def _is_open(self) -> bool:
        """Whether optimizer steps alone end the fit."""
        return self.span.is_open and bool(self.between.is_over)

    def _told(self, one: Pass) -> list[str]:
        """The lines that tell samplers and data sets of a loader the number of the epoch."""
        loader, lines = one.task.dataloader, []
        for path, piece in walk(loader):
            if piece.kind in ("object", "state") and hasattr(type(piece.value), "set_epoch"):
                steps = path.split(".")[1:]
                text = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps)
                is_code = all(step.isdigit() or step.isidentifier() for step in steps)
                call = f"{one.loader}{text}.set_epoch({self.epoch})"
                lines.append(
                    call if is_code else self.parts.gaps.not_written(f"set_epoch of {path}")
                )
        return lines

    def _stop(self) -> list[str]:
        """The lines that end the loop, or go on."""
        ends = [*self._exhausted]
        if self.between.is_over and not self._is_open:
            ends.append(self.between.is_over)
        stop = [f"if {' or '.join(ends)}:", f"{INDENT}break"] if ends else []
        return [*stop, *([f"{self.epoch} += 1"] if self._is_open else [])]

    def _train(self) -> list[str]:
        hooks = self.parts.hooks
        lines = self._passes(Stage.TRAIN, len(INDENT))
        lines += [f"{opt}.eval()" for opt in self.parts.moded]
        return [*hooks("on_before_train_epochs"), *lines, *hooks("on_after_train_epochs")]

    def _validate(self) -> list[str]:
        """The lines of the validation that may end an epoch."""
        hooks, name, when = self.parts.hooks, self.values[Stage.VAL], self._when()
        before, after = hooks("on_before_val_epochs"), hooks("on_after_val_epochs")
        if when and len(self.plan.tasks[Stage.VAL]) == 1:
            (line,) = self._passes(Stage.VAL, len(INDENT))
            return [*before, f"{line} if {when} else {{}}", *after]
        lines = [*before, *self._passes(Stage.VAL, len(INDENT) * (2 if when else 1)), *after]
        if when:
            return [f"{name} = {{}}", f"if {when}:", *(INDENT + line for line in lines)]
        return lines

    def _when(self) -> str:
        """The condition under which an epoch ends with a validation; ``''``: always."""
        asks = [f"({self.epoch} + 1) % {self.plan.val_freq} == 0"] if self._is_rare else []
        if asks and self.between.is_over:
            asks.append(self.between.is_over)
        goes_on = [f"{name} < {number}" for name, number in self.between.ends]
        wanted = " or ".join(asks)
        if goes_on and len(asks) > 1:
            wanted = f"({wanted})"
        return " and ".join(filter(None, [wanted, *goes_on]))

    def _after_values(self) -> list[str]:
        """The lines that follow the values of an epoch."""
        moves = self._schedules(None)
        if not self.between.val_every:
            best = self._best.each[Stage.VAL]
            return [*best, *self._schedules(Stage.VAL), *self._schedules(Stage.TRAIN), *moves]
        val = self.values[Stage.VAL]
        call = [f"{self._follow}({val})"] if self._follow else []
        asks = [val] if self._when() else []
        if self.between.may_repeat:
            asks.append(f"{self.between.steps} not in dict({self.between.validations})")
        if call and asks:
            call = [f"if {' and '.join(asks)}:", f"{INDENT}{call[0]}"]
        return [*call, *self._schedules(Stage.TRAIN), *moves]

    def _passes(self, stage: Stage, indent: int) -> list[str]:
        """The lines that run the passes of a stage, and pool their values."""
        name = self.values[stage]
        passes = [one for one in self.passes if one.stage is stage]
        return (
            [f"{name} = {passes[0].name}()"]
            if len(passes) == 1
            else self._pooled(passes, name, indent)
        )

    def _pooled(self, passes: Sequence[Pass], name: str, indent: int) -> list[str]:
        """The lines of several tasks: their own values, and the loss of all."""
        parts = [f"{name}_{index + 1}" for index in range(len(passes))]
        lines = [
            f"{part}, total_{part}, count_{part} = {one.name}()"
            for part, one in zip(parts, passes, strict=True)
        ]
        entries = [f"**{part}" for part in parts]
        if any(one.has_loss for one in passes):
            total = " + ".join(f"total_{part}" for part in parts)
            count = " + ".join(f"count_{part}" for part in parts)
            entries.insert(0, f'"loss": ({total}) / ({count})')
        if any(self.plan.metrics_of(one.stage, one.task) for one in passes):
            what = f"the metrics of the {passes[0].stage} tasks together"
            lines.append(self.parts.gaps.not_written(what))
        return [*lines, *folded(f"{name} = {{", entries, "}", indent)]

    def _record(self) -> list[str]:
        train, val = self.values[Stage.TRAIN], self.values[Stage.VAL]
        shown = f"{train}, {val}" if self.has_val else train
        entry = f"({shown})" if self.has_val else f"({train},)"
        end = self._end if self._end.isdecimal() else f"{{{self._end}}}"
        of = "" if self._is_open else f"/{end}"
        line = f'print(f"epoch {{{self.epoch} + 1}}{of}", {shown})'
        return [f"{self.history}.append({entry})", line]

    def _schedules(self, follows: Stage | None) -> list[str]:
        """The steps of the schedules that move once an epoch, or follow a value of a stage."""
        lines: list[str] = []
        for name, optimizer in zip(self.parts.schedulers, self.parts.trainer.opt, strict=True):
            if not name or optimizer.sched_on != "epoch":
                continue
            stage = self.plan.stage_followed(optimizer.monitor) if optimizer.needs_loss else None
            if stage is not follows:
                continue
            if stage is None:
                lines.append(f"{name}.step()")
                continue
            values = self.values[stage]
            step = f'{name}.step({values}["{optimizer.monitor or "loss"}"])'
            if stage is Stage.VAL and self._is_rare and not self.between.val_every:
                lines += [f"if {values}:", f"{INDENT}{step}"]
            else:
                lines.append(step)
        return lines

    def _notes(self) -> list[str]:
        """Comments for what the whole fit has, and the script has not."""
        trainer, gaps = self.parts.trainer, self.parts.gaps
        lines = [gaps.not_written(what) for what in left_out(trainer)]
        count = trainer.runtime.num_processes
        if count > 1:
            lines.append(gaps.not_written(f"{count} processes: this is one, with all mini-batches"))
        if trainer.resume is not None and trainer.resume is not False:
            lines.append(gaps.not_written(f"resume={trainer.resume!r}"))
        if start := self.span.start:
            lines.append(
                gaps.not_written(
                    f"the {counted(start, 'epoch', 'epochs')} before, which made the weights"
                )
            )
        lines += [gaps.not_written(text) for text in self._limits()]
        if self.between.may_repeat and self._is_rare and trainer.grad_accumulate > 1:
            what = "val_every at the step that the mini-batches left over at the end make"
            lines.append(gaps.not_written(what))
        workers = [getattr(task.dataloader, "num_workers", 0) for task in self.plan.all_tasks()]
        if any(workers) and trainer.worker_seeding == "position":
            what = "worker_seeding='position': the random numbers of workers are those of torch"
            lines.append(gaps.not_written(what))
        return lines

    def _limits(self) -> list[str]:
        """The arguments of the trainer that say how long a fit runs, and that are not written out."""
        trainer = self.parts.trainer
        limits, is_over = trainer.limits, self.between.is_over
        given = [
            ("max_steps", None if is_over else limits.max_steps, None),
            ("max_time", limits.max_time_s, None),
            ("dry_run", limits.dry_run, False),
            ("on_oom", trainer.on_oom, "raise"),
        ]
        return [f"{name}={value!r}" for name, value, default in given if value != default]
