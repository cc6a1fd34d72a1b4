"""Makes all checks of a training: facts first, then what needs steps of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError
from ..fit.plan import plan_fit
from ..hints.calls import refusal
from ..state.snapshot import no_trace
from . import data, labels, loading, modes, plans, resume, steps, weights
from .findings import Finding, Findings
from .look import Look, told

CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = (
    weights.frozen_weights_only,
    weights.untrained_weights,
    weights.weights_in_two_optimizers,
    labels.failing_steps,
    labels.warnings_of_steps,
    labels.first_loss,
    labels.unfit_labels,
    labels.probabilities_twice,
    labels.one_class_only,
    labels.spoilt_targets,
    data.unreadable_samples,
    data.spoilt_inputs,
    data.constant_inputs,
    data.scales_apart,
    data.not_shuffled,
    data.shared_samples,
    modes.batch_norm_of_one,
    modes.frozen_batch_norm,
    modes.wrong_mode,
    modes.dropout_in_validation,
    weights.weights_without_gradient,
    weights.gradients_apart,
    plans.schedules,
    plans.ends_of_schedules,
    plans.accumulation,
    plans.clipping,
    plans.kept_outputs,
    steps.one_batch_by_heart,
    steps.learning_rate,
    loading.data_loading,
    loading.synchronizations,
    resume.exact_resume,
)
"""All checks. Each is a function of a ``Look`` that yields what it finds."""

TRAINING = (steps.one_batch_by_heart, steps.learning_rate)
"""Those that make training steps of their own, which may meet a sample that fails."""


def check_training(trainer: Any, options: Mapping[str, Any]) -> Findings:
    """Make all checks on a training that ``fit(**options)`` would do, and put everything back.

    Args:
        trainer: the trainer.
        options: the arguments of ``fit`` by name.

    Raises:
        ConfigError: an argument that ``fit`` refuses; a model with lazy layers; several processes.
        LoopException: called in a running fit.
    """
    if (refused := refusal(type(trainer).fit, (trainer,), options)) is not None:
        raise refused
    if trainer.runtime.num_processes > 1 or trainer.runtime.is_sharded:
        raise ConfigError(
            "check() works in one process, with a model that is not sharded: call it in a script that "
            "is started without a launcher."
        )
    with told() as texts:
        plan = plan_fit(trainer, **trainer.options_of_fit(options))
    found = [told_of for text in texts if (told_of := labels.of_warning(text)) is not None]
    epochs = range(trainer.init_epoch, trainer.span_of(plan, options.get("epochs")).end)
    look = Look(trainer, plan, options, epochs)
    with no_trace(trainer, [task.dataloader for task in plan.all_tasks()]):
        for check in CHECKS:
            try:
                found += check(look)
            except Exception as error:
                if check not in TRAINING:
                    raise
                found.append(labels.of_error("training", error))
    return Findings(found)
