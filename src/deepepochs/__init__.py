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
    from .callbacks import (
        AnalyzeCallback,
        CheckCallback,
        GradClipCallback,
        InterpretCallback,
        LogCallback,
        LRFindCallback,
        ReportCallback,
        RunRecordCallback,
        TimingCallback,
        TrackerCallback,
    )

    # Names of release 0.6, for old scripts.
    from .callbacks import InterpreteCallback as InterpreteCallback
    from .callbacks.console import DefaultCallback as DefaultCallback
    from .callbacks.console import info as info
    from .callbacks.console import log_batch as log_batch
    from .callbacks.console import log_epoch as log_epoch
    from .callbacks.console import print_out as print_out
    from .loops import batch_size as batch_size
    from .loops import check_path as check_path
    from .loops import clone_value as clone_value
    from .loops import compose_data as compose_data
    from .loops import concat_dicts as concat_dicts
    from .loops import ddict as ddict
    from .loops import default_loss as default_loss
    from .loops import detach_clone as detach_clone
    from .loops import flatten_dict as flatten_dict
    from .loops import keyset as keyset
    from .loops import listify as listify
    from .loops import make_runningid as make_runningid
    from .loops import sum_dicts as sum_dicts
    from .loops import tensor_tuple as tensor_tuple
    from .loops import to_numpy as to_numpy
    from .show.lr_curve import LRCurve
    from .show.plots import plot_confusion
    from .tools import Moveing as Moveing
    from .tools import SeriesPlots as SeriesPlots
    from .tools import TopKQueue as TopKQueue
    from .tools import groupby_apply as groupby_apply
    from .tools import load_yaml as load_yaml
else:
    # A type checker must not see this function: it would let any misspelt name pass.
    __getattr__ = on_demand(
        __name__,
        {
            "callbacks": [
                "AnalyzeCallback",
                "CheckCallback",
                "GradClipCallback",
                "InterpretCallback",
                "LRFindCallback",
                "LogCallback",
                "ReportCallback",
                "RunRecordCallback",
                "TimingCallback",
                "TrackerCallback",
                "InterpreteCallback",
            ],
            "show.lr_curve": ["LRCurve"],
            "show.plots": ["plot_confusion"],
            # Names of release 0.6, for old scripts: they are in no list.
            "callbacks.console": ["DefaultCallback", "info", "log_batch", "log_epoch", "print_out"],
            "loops": [
                "check_path",
                "clone_value",
                "compose_data",
                "concat_dicts",
                "ddict",
                "default_loss",
                "detach_clone",
                "flatten_dict",
                "keyset",
                "listify",
                "make_runningid",
                "sum_dicts",
                "tensor_tuple",
                "to_numpy",
                "batch_size",
            ],
            "tools": ["Moveing", "SeriesPlots", "TopKQueue", "groupby_apply", "load_yaml"],
        },
    )

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
    "EpochTask",
    "GradClipCallback",
    "History",
    "HookError",
    "InterpretCallback",
    "LRCurve",
    "LRFindCallback",
    "LinearCosineScheduler",
    "LogCallback",
    "LoopException",
    "MeanPatch",
    "MetricError",
    "MetricPatch",
    "MissingExtraError",
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
    "Stage",
    "StepError",
    "StopLoopException",
    "TensorDict",
    "TensorPatch",
    "TensorTuple",
    "TimingCallback",
    "TrackerCallback",
    "Trainer",
    "TrainerBase",
    "ValuePatch",
    "__version__",
    "batches",
    "callbacks",
    "concat",
    "loops",
    "metrics",
    "optimizer",
    "patches",
    "plot_confusion",
    "rename",
    "set_seed",
    "tools",
]


def __dir__() -> list[str]:
    return sorted(__all__)
