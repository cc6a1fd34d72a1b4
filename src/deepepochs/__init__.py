"""DeepEpochs trains PyTorch models: exact metrics, exact resume, one readable loop.

Give a model, a loss, an optimizer and DataLoaders to a ``Trainer``; it runs the
epochs, keeps the metrics and calls the callbacks::

    from deepepochs import Trainer

    trainer = Trainer(model, F.cross_entropy, opt, epochs=2)
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from . import callbacks, metrics, patches
from .callbacks.base import Callback
from .callbacks.console import ConsoleCallback
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
    MetricNotFound,
    MissingExtraError,
    NotBoundError,
    NotFiniteError,
    PatchError,
    RunLockedError,
    StepError,
    StopLoopException,
)
from .history import History, Progress
from .legacy.naming import rename
from .nest.operations import TensorDict, TensorTuple, batches, concat
from .on_demand import on_demand
from .optim.optimizers import LinearCosineScheduler, Optimizer, Optimizers
from .patches import (
    ConfusionMetrics,
    ConfusionPatch,
    CountsPatch,
    MeanPatch,
    MetricPatch,
    PatchBase,
    TensorPatch,
    ValuePatch,
    accumulates,
)
from .rng import set_seed
from .stages import Stage
from .task import EpochTask
from .trainer import Trainer, TrainerBase

if TYPE_CHECKING:
    from . import loops, optimizer, tools
    from .callbacks import (
        AnalyzeCallback,
        CheckCallback,
        EarlyStopCallback,
        FreezeCallback,
        GradClipCallback,
        GradNormCallback,
        InterpretCallback,
        LogCallback,
        LRFindCallback,
        PruneCallback,
        ReportCallback,
        RunRecordCallback,
        TimingCallback,
        TrackerCallback,
    )  # fmt: skip
    from .callbacks import InterpreteCallback as InterpreteCallback
    from .callbacks.console import *  # noqa: F403
    from .loops import *  # noqa: F403
    from .optim.average import EMA
    from .optim.groups import param_groups
    from .show.lr_curve import LRCurve
    from .show.plots import plot_confusion
    from .tools import *  # noqa: F403
else:
    # A type checker must not see this function: it would let any misspelt name pass.
    __getattr__ = on_demand(
        __name__,
        {
            "callbacks": [name for name in callbacks.__all__ if name not in globals()],
            "callbacks.interpret": ["InterpreteCallback"],  # of 0.6, like the names of the others
            "optim.average": ["EMA"],
            "optim.groups": ["param_groups"],
            "show.lr_curve": ["LRCurve"],
            "show.plots": ["plot_confusion"],
        },
        # The names of release 0.6, for old scripts: they are in no list here.
        others=["loops", "tools", "callbacks.console"],
    )

try:
    __version__ = version("deepepochs")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"

__all__ = [
    "EMA", "AnalyzeCallback", "Callback", "CallbackException", "CallbackPool", "CheckCallback",
    "CheckpointDamaged", "CheckpointError", "CheckpointMismatch", "CheckpointNotFound",
    "ConfigError", "ConfigTypeError", "ConfusionMetrics", "ConfusionPatch", "ConsoleCallback",
    "CountsPatch", "DataError", "DeepEpochsError", "EarlyStopCallback", "EpochTask", "FreezeCallback", "GradClipCallback", "GradNormCallback",
    "History", "HookError",
    "InterpretCallback", "LRCurve", "LRFindCallback", "LinearCosineScheduler", "LogCallback",
    "LoopException", "MeanPatch", "MetricError", "MetricNotFound", "MetricPatch", "MissingExtraError",
    "NotBoundError", "NotFiniteError", "Optimizer", "Optimizers", "PatchBase", "PatchError",
    "Progress", "PruneCallback", "ReportCallback", "RunLockedError", "RunRecordCallback", "Stage", "StepError",
    "StopLoopException", "TensorDict", "TensorPatch", "TensorTuple", "TimingCallback",
    "TrackerCallback", "Trainer", "TrainerBase", "ValuePatch", "__version__", "accumulates", "batches",
    "callbacks", "concat", "loops", "metrics", "optimizer", "param_groups", "patches", "plot_confusion",
    "rename", "set_seed", "tools",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
