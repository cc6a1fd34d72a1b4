"""The script of a fit in plain PyTorch: the user's lines, one function a pass, and the loop of epochs.

::

    trainer.plain_loop("loop.py", train_dl, val_dl)
    python loop.py                                   # trains to the same weights
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import Any

from ..fit.epochs import FitSpan
from ..fit.plan import FitPlan
from ..patches.plan import check_metrics
from ..stages import Stage
from .callbacks import clip_of
from .epochs import Epochs
from .gaps import STOP, Gaps
from .layout import import_lines, laid_out
from .parts import Parts
from .passes import Pass
from .prelude import Prelude
from .source import LIBRARY, bound_names, names_read, names_read_at_once

STANDARD = {
    "torch": "import torch",
    "Any": "from typing import Any",
    "islice": "from itertools import islice",
    "fnmatchcase": "from fnmatch import fnmatchcase",
    "AveragedModel": "from torch.optim.swa_utils import AveragedModel",
    "get_ema_multi_avg_fn": "from torch.optim.swa_utils import get_ema_multi_avg_fn",
    "SimpleNamespace": "from types import SimpleNamespace",
    "np": "import numpy as np",
    "random": "import random",
}
"""What the lines of this package read, and the imports of it."""


def script_of(
    trainer: Any,
    plan: FitPlan,
    span: FitSpan,
    fit_options: Mapping[str, Any],
    frame: FrameType | None,
    call: str,
) -> str:
    """Write the script of a fit.

    Args:
        trainer: that has the fit.
        plan: of the fit.
        span: its epochs.
        fit_options: the arguments of the fit.
        frame: of the script, in the line in which ``call`` is called.
        call: the name of the method.
    """
    gaps = Gaps()
    prelude = Prelude(trainer, frame, call, gaps)
    parts = Parts(trainer, prelude, gaps, clip_of(trainer.callbacks))
    parts.take_metrics(_given_metrics(trainer, fit_options))
    passes = [
        Pass(parts, plan, stage, task, _loader(parts, plan, stage, index))
        for stage, tasks in plan.tasks.items()
        for index, task in enumerate(tasks)
    ]
    parts.keep_free(set().union(*(one.assigned for one in passes)))
    epochs = Epochs(parts, plan, span, passes)
    functions = [
        "\n".join(one.write(epochs.between, epochs.frozen, epochs.epoch)) for one in passes
    ]
    functions += ["\n".join(one) for one in epochs.functions() if one]
    loop = epochs.lines()
    helpers = ["\n".join(lines) for lines in parts.helpers.values()]
    own = parts.own_lines()
    body = [*parts.setup, *own, *helpers, *parts.late, *functions, "\n\n" + "\n".join(loop)]
    return _joined(prelude, gaps, body, [one.step for one in passes])


def _given_metrics(trainer: Any, fit_options: Mapping[str, Any]) -> dict[str, list[Any]]:
    given: dict[str, list[Any]] = {"metrics of the trainer": list(trainer.general_metrics)}
    for name in ("metrics", "train_metrics", "val_metrics"):
        given[name] = check_metrics(fit_options.get(name), name)
    return given


def _loader(parts: Parts, plan: FitPlan, stage: Stage, index: int) -> str:
    """The expression of the loader of a task."""
    loaders, loader = parts.prelude.loaders, plan.tasks[stage][index].dataloader
    several = len(plan.tasks[stage]) > 1
    known = (
        (loaders.get(f"{stage}_dl", "") if not index else "")
        or parts.prelude.name_of(loader)
        or loaders.get(f"id {id(loader)}", "")
        or loaders.get(f"{stage}_tasks {index - bool(loaders.get(f'{stage}_dl'))}", "")
    )
    overfit = parts.trainer.limits.overfit
    if known and not overfit:
        return known
    name = parts.names.free(f"{stage}_dl_{index + 1}" if several else f"{stage}_dl")
    of_task = f" of task {plan.labels[stage][index]!r}" if several else ""
    stages = {Stage.TRAIN: "training", Stage.VAL: "validation"}
    what = f"the {stages[stage]} loader{of_task}"
    if overfit:
        what = f"a list of the mini-batches that overfit_batches={overfit} keeps of {what}"
    parts.setup.append(parts.gaps.fill_in(name, what))
    return name


def _joined(prelude: Prelude, gaps: Gaps, body: list[str], steps: list[Any]) -> str:
    """Join head, imports, the user's lines and those of the loop."""
    text = "\n".join(body)
    imports, before = prelude.finish(text)
    before = _filled_in(before, imports, gaps)
    missing = _missing(before, body, imports)
    found, lines = _found(missing, steps, gaps)
    imports += [ast.parse(line).body[0] for line in found]
    stop = gaps.stop()
    used = names_read(ast.parse("\n".join([*stop, *before, *lines, *body])))
    bound = {name for one in imports for name in bound_names(one)}
    imports += [
        ast.parse(line).body[0]
        for name, line in STANDARD.items()
        if name in used and name not in bound
    ]
    head = gaps.head(
        f"The training of {prelude.file or 'a run'}, written out in PyTorch by DeepEpochs."
    )
    first, *rest = [*stop, *before, *lines, *body]
    top = "\n".join([*head, "", *import_lines(imports)])
    return laid_out([top, "\n" + first.lstrip("\n"), *rest])


def _filled_in(lines: list[str], imports: list[ast.stmt], gaps: Gaps) -> list[str]:
    """Have names filled in that statements read before anything sets them.

    Such as that of a ``with`` around the line in which the call is.
    """
    known = _names_of(imports)
    if "*" in known:
        return lines
    found: list[str] = []
    for text in lines:
        for statement in ast.parse(text).body:
            missing = names_read_at_once(statement) - known
            found += [gaps.fill_in(name, name) for name in sorted(missing)]
            known |= missing | bound_names(statement)
        found.append(text)
    return found


def _missing(before: list[str], body: list[str], imports: list[ast.stmt]) -> set[str]:
    """The names that the script reads and nothing in it defines."""
    tree = ast.parse("\n".join([*before, *body]))
    known = _names_of(imports)
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr, ast.comprehension)):
            known |= bound_names(node)
        if isinstance(node, ast.arg):
            known.add(node.arg)
        if isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
    return set() if "*" in known else names_read(tree) - known


def _names_of(imports: list[ast.stmt]) -> set[str]:
    """The names that a script has from imports and of Python; with ``'*'`` nobody knows all."""
    given = {*dir(builtins), *STANDARD, STOP, "__name__", "__file__", "__doc__"}
    return given.union(*map(bound_names, imports))


def _found(missing: set[str], steps: list[Any], gaps: Gaps) -> tuple[list[str], list[str]]:
    """Import names that steps read from their modules, or have them filled in."""
    imports, lines = [], []
    for name in sorted(missing):
        step = next((s for s in steps if name in getattr(s, "__globals__", {})), None)
        value = None if step is None else step.__globals__[name]
        module = str(getattr(value, "__module__", ""))
        own = "" if step is None else step.__module__
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] != LIBRARY:
            alias = "" if value.__name__ == name else f" as {name}"
            imports.append(f"import {value.__name__}{alias}")
        elif step is not None and own != "__main__" and module.partition(".")[0] != LIBRARY:
            imports.append(f"from {own} import {name}")
        else:
            lines.append(gaps.fill_in(name, name))
    return imports, lines
