"""The save points of ``resuming.py`` with a sharded model: ``sharded_resuming.py RESULT_FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import resuming
from sharding import shard
from torch import nn
from torch.nn import functional as F

plain_model = resuming.make_model


def make_model() -> nn.Module:
    return shard(plain_model())


resuming.make_model = make_model
# Trained weights outside of a sharded model are refused.
resuming.make_loss = lambda: F.cross_entropy

if __name__ == "__main__":
    resuming.main()
