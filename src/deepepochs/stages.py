"""The four things a pass over data can be for.

>>> from deepepochs.stages import Stage
>>> Stage("val") is Stage.VAL, str(Stage.TRAIN)
(True, 'train')
"""

from __future__ import annotations

from enum import Enum


class Stage(str, Enum):
    """What a pass over a loader is for. A ``str``, so ``task.stage == 'train'`` holds."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    PREDICT = "predict"

    __str__ = str.__str__
