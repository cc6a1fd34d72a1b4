"""Seed, read and restore every random state a training run draws from.

The state of Python's `random`, of NumPy's global generator, and of torch on the CPU and
on each accelerator is one dict of tensors and plain values, so it can be saved in a file
that loads with ``weights_only=True``.

>>> import torch
>>> from deepepochs.rng import get_state, preserved, set_seed
>>> set_seed(1)
>>> with preserved():
...     a = torch.rand(2)
>>> bool((torch.rand(2) == a).all())
True
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .errors import CheckpointMismatch, ConfigError

__all__ = ["get_state", "preserved", "set_seed", "set_state"]

_KEYS = ("python", "numpy", "torch", "cuda", "mps")


def set_seed(seed: float) -> None:
    """Seed Python, NumPy and torch on all devices, and make cuDNN deterministic.

    Args:
        seed: 0 to 2**32 - 1 (NumPy's range); a float is cut to an int.

    Raises:
        ConfigError: `seed` is out of that range.

    Example:
        >>> set_seed(1.0)
        >>> random.random()
        0.13436424411240122
    """
    number = int(seed)
    if not 0 <= number < 2**32:
        raise ConfigError(f"set_seed got {seed}: give a number from 0 to {2**32 - 1}")
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)  # also seeds every accelerator, at its first use if need be
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def get_state() -> dict[str, Any]:
    """Read every random state, drawing nothing.

    Returns:
        A dict of tensors and plain values: `python` and `numpy` (each the words of its
        generator and what it holds back for the next Gaussian), `torch`, `cuda` (one per
        device, empty if CUDA is unused in this process) and `mps` (None if there is none).

    Example:
        >>> sorted(get_state())
        ['cuda', 'mps', 'numpy', 'python', 'torch']
    """
    version, words, gauss = random.getstate()
    _, keys, pos, has_gauss, cached = np.random.get_state(legacy=True)
    # Starting CUDA here would cost seconds and memory, and there is nothing to keep yet.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {
        "python": {
            "version": version,
            "words": torch.from_numpy(np.array(words, dtype=np.int64)),
            "gauss": gauss,
        },
        "numpy": {
            "words": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "pos": int(pos),
            "has_gauss": int(has_gauss),
            "gauss": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_state(state: Mapping[str, Any]) -> None:
    """Restore what `get_state` read.

    Args:
        state: from `get_state`, possibly through a file.

    Raises:
        CheckpointMismatch: it is not such a state, or has CUDA states for more devices
            than there are. Nothing has been changed then.

    Example:
        >>> state = get_state()
        >>> a = random.random()
        >>> set_state(state)
        >>> random.random() == a
        True
    """
    python, numpy = _checked(state)
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(state["torch"].cpu())
    for index, device_state in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(device_state.cpu(), index)
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())


@contextmanager
def preserved() -> Iterator[None]:
    """Let the block draw what it likes: afterwards every random state is as before.

    >>> with preserved():
    ...     _ = random.random()
    """
    state = get_state()
    try:
        yield
    finally:
        set_state(state)


def _checked(state: Mapping[str, Any]) -> tuple[Any, Any]:
    """Try the state on spare generators; gives what Python's and NumPy's setters take."""
    if not isinstance(state, Mapping) or sorted(state) != sorted(_KEYS):
        found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointMismatch(f"the random state holds {found}, and not {sorted(_KEYS)}")
    part = "python"
    try:
        saved = state["python"]
        python = (saved["version"], tuple(saved["words"].tolist()), saved["gauss"])
        random.Random().setstate(python)
        if not isinstance(python[2], (float, type(None))):
            raise TypeError(f"gauss is {python[2]!r}")
        part, saved = "numpy", state["numpy"]
        keys = saved["words"].numpy().astype(np.uint32)
        numpy = ("MT19937", keys, saved["pos"], saved["has_gauss"], saved["gauss"])
        np.random.RandomState().set_state(numpy)
        part = "torch"
        torch.Generator().set_state(state["torch"].cpu())
        part = "cuda"
        if not isinstance(state["cuda"], (list, tuple)):
            raise TypeError("it is no list")
        num_states, num_devices = len(state["cuda"]), torch.cuda.device_count()
        for index, device_state in enumerate(state["cuda"][:num_devices]):
            torch.Generator(f"cuda:{index}").set_state(device_state.cpu())
        part = "mps"
        if state["mps"] is not None and not isinstance(state["mps"], torch.Tensor):
            raise TypeError("it is no tensor")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise CheckpointMismatch(
            f"the random state's part {part!r} is malformed ({error}); "
            "it must be what deepepochs.rng.get_state() gave"
        ) from error
    if num_states > num_devices:
        raise CheckpointMismatch(
            f"the random state was saved with {num_states} CUDA devices, and there are "
            f"{num_devices} here: resume on as many, or leave the random states out"
        )
    return python, numpy
