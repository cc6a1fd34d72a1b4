"""DeepEpochs trains PyTorch models: exact metrics, exact resume, one readable loop.

Give a model, a loss, an optimizer and DataLoaders to a ``Trainer``; it runs the
epochs, keeps the metrics and calls the callbacks::

    from deepepochs import Trainer

    trainer = Trainer(model, F.cross_entropy, opt, epochs=2)
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from . import callbacks, metrics, patches
from .arguments import default_loss
from .callbacks.base import Callback
from .callbacks.console import (
    ConsoleCallback,
    DefaultCallback,
    info,
    log_batch,
    log_epoch,
    print_out,
)
from .callbacks.pool import CallbackPool
from .errors import (
    CallbackException,
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
    ConfigTypeError,
    DataError,
    DeepEpochsError,
    HookError,
    LoopException,
    MetricError,
    MissingExtraError,
    NotBoundError,
    NotFiniteError,
    PatchError,
    RunLockedError,
    StepError,
    StopLoopException,
)
from .history import History, Progress
from .legacy.mappings import concat_dicts, ddict, flatten_dict, keyset, listify, sum_dicts
from .legacy.naming import check_path, make_runningid, rename
from .nest.operations import (
    TensorDict,
    TensorTuple,
    batch_size,
    batches,
    clone_value,
    compose_data,
    concat,
    detach_clone,
    tensor_tuple,
    to_numpy,
)
from .on_demand import submodule
from .optim.optimizers import LinearCosineScheduler, Optimizer, Optimizers
from .patches import (
    ConfusionMetrics,
    ConfusionPatch,
    MeanPatch,
    MetricPatch,
    PatchBase,
    TensorPatch,
    ValuePatch,
)
from .rng import set_seed
from .stages import Stage
from .task import EpochTask
from .trainer import Trainer, TrainerBase

if TYPE_CHECKING:
    from . import loops, optimizer, tools
    from .callbacks.analyze import AnalyzeCallback
    from .callbacks.check import CheckCallback
    from .callbacks.grad_clip import GradClipCallback
    from .callbacks.interpret import InterpretCallback, InterpreteCallback
    from .callbacks.log import LogCallback
    from .callbacks.lr_find import LRFindCallback
    from .callbacks.report import ReportCallback
    from .callbacks.run_record import RunRecordCallback
    from .callbacks.timing import TimingCallback
    from .callbacks.trackers import TrackerCallback
    from .show.lr_curve import LRCurve
    from .tools import Moveing, SeriesPlots, TopKQueue, groupby_apply, load_yaml, plot_confusion
else:
    # Two modules in five serve what a script may never ask for: they are loaded when it does.
    # (A type checker must not see this function: it would let any misspelt name pass.)
    _ON_DEMAND = {
        "callbacks.analyze": ["AnalyzeCallback"],
        "callbacks.check": ["CheckCallback"],
        "callbacks.grad_clip": ["GradClipCallback"],
        "callbacks.interpret": ["InterpretCallback", "InterpreteCallback"],
        "callbacks.log": ["LogCallback"],
        "callbacks.lr_find": ["LRFindCallback"],
        "callbacks.report": ["ReportCallback"],
        "callbacks.run_record": ["RunRecordCallback"],
        "callbacks.timing": ["TimingCallback"],
        "callbacks.trackers": ["TrackerCallback"],
        "show.lr_curve": ["LRCurve"],
        "show.plots": ["SeriesPlots", "plot_confusion"],
        "legacy.reductions": ["Moveing", "TopKQueue", "groupby_apply"],
        "legacy.yaml": ["load_yaml"],
    }
    _MODULE_OF = {name: module for module, names in _ON_DEMAND.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            return submodule(__name__, name)
        value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


try:
    __version__ = version("deepepochs")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"

__all__ = [
    "AnalyzeCallback",
    "Callback",
    "CallbackException",
    "CallbackPool",
    "CheckCallback",
    "CheckpointDamaged",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "ConfigError",
    "ConfigTypeError",
    "ConfusionMetrics",
    "ConfusionPatch",
    "ConsoleCallback",
    "DataError",
    "DeepEpochsError",
    "DefaultCallback",
    "EpochTask",
    "GradClipCallback",
    "History",
    "HookError",
    "InterpretCallback",
    "InterpreteCallback",
    "LRCurve",
    "LRFindCallback",
    "LinearCosineScheduler",
    "LogCallback",
    "LoopException",
    "MeanPatch",
    "MetricError",
    "MetricPatch",
    "MissingExtraError",
    "Moveing",
    "NotBoundError",
    "NotFiniteError",
    "Optimizer",
    "Optimizers",
    "PatchBase",
    "PatchError",
    "Progress",
    "ReportCallback",
    "RunLockedError",
    "RunRecordCallback",
    "SeriesPlots",
    "Stage",
    "StepError",
    "StopLoopException",
    "TensorDict",
    "TensorPatch",
    "TensorTuple",
    "TimingCallback",
    "TopKQueue",
    "TrackerCallback",
    "Trainer",
    "TrainerBase",
    "ValuePatch",
    "__version__",
    "batch_size",
    "batches",
    "callbacks",
    "check_path",
    "clone_value",
    "compose_data",
    "concat",
    "concat_dicts",
    "ddict",
    "default_loss",
    "detach_clone",
    "flatten_dict",
    "groupby_apply",
    "info",
    "keyset",
    "listify",
    "load_yaml",
    "log_batch",
    "log_epoch",
    "loops",
    "make_runningid",
    "metrics",
    "optimizer",
    "patches",
    "plot_confusion",
    "print_out",
    "rename",
    "set_seed",
    "sum_dicts",
    "tensor_tuple",
    "to_numpy",
    "tools",
]
