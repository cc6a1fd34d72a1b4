"""The built-in callbacks, one file each; a file is imported when it is first used.

>>> from deepepochs.callbacks import CheckCallback, LogCallback
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CallbackException
from ..on_demand import on_demand
from .base import Callback
from .console import ConsoleCallback
from .console import DefaultCallback as DefaultCallback
from .pool import CallbackPool

if TYPE_CHECKING:
    from .analyze import AnalyzeCallback
    from .check import CheckCallback
    from .early_stop import EarlyStopCallback
    from .grad_clip import GradClipCallback, GradNormCallback
    from .interpret import InterpretCallback
    from .interpret import InterpreteCallback as InterpreteCallback
    from .log import LogCallback
    from .lr_find import LRFindCallback
    from .report import ReportCallback
    from .run_record import RunRecordCallback
    from .search.prune import PruneCallback
    from .timing import TimingCallback
    from .trackers import TrackerCallback
    from .training.freeze import FreezeCallback
else:
    __getattr__ = on_demand(
        __name__,
        {
            "analyze": ["AnalyzeCallback"],
            "check": ["CheckCallback"],
            "early_stop": ["EarlyStopCallback"],
            "training.freeze": ["FreezeCallback"],
            "grad_clip": ["GradClipCallback", "GradNormCallback"],
            "interpret": ["InterpretCallback", "InterpreteCallback"],
            "log": ["LogCallback"],
            "lr_find": ["LRFindCallback"],
            "report": ["ReportCallback"],
            "run_record": ["RunRecordCallback"],
            "search.prune": ["PruneCallback"],
            "timing": ["TimingCallback"],
            "trackers": ["TrackerCallback"],
        },
    )

__all__ = [
    "AnalyzeCallback", "Callback", "CallbackException", "CallbackPool", "CheckCallback",
    "ConsoleCallback", "EarlyStopCallback", "FreezeCallback", "GradClipCallback", "GradNormCallback", "InterpretCallback",
    "LRFindCallback", "LogCallback", "PruneCallback", "ReportCallback", "RunRecordCallback",
    "TimingCallback", "TrackerCallback",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
