"""Seeds, reads and restores every random state of a training run.

These are the states of Python's `random`, of NumPy's global generator, and of torch on the CPU
and on each accelerator. Together they are one dict of tensors and plain values, which a file
loads with ``weights_only=True``.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from .errors import CheckpointMismatch, ConfigError
from .nest.functions import enclosed_by, globals_of

__all__ = ["get_state", "preserved", "set_seed", "set_state"]

_LIBRARIES = {"builtins", "deepepochs", "numpy", "sklearn", "torch", "torchmetrics"}
_KEYS = ("python", "numpy", "torch", "cuda", "mps")


def set_seed(seed: float) -> None:
    """Seed Python, NumPy and torch on all devices, and make cuDNN deterministic.

    Args:
        seed: from 0 to 2**32 - 1 (NumPy's range); a float is cut to an int.

    Raises:
        ConfigError: `seed` is out of this range.

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
    torch.manual_seed(number)  # seeds every accelerator, too, at the latest when it is used
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def get_state() -> dict[str, Any]:
    """Read every random state, without drawing a number.

    Returns:
        A dict of tensors and plain values: `python` and `numpy` (each the words of the
        generator, and the Gaussian number that it keeps for the next call), `torch`, `cuda`
        (one for each device, empty if this process does not use CUDA) and `mps` (or `None`).

    Example:
        >>> sorted(get_state())
        ['cuda', 'mps', 'numpy', 'python', 'torch']
    """
    version, words, gauss = random.getstate()
    _, keys, pos, has_gauss, cached = np.random.get_state(legacy=True)
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
        **_device_states(),
    }


def set_state(state: Mapping[str, Any]) -> None:
    """Restore the random states.

    Args:
        state: from `get_state`, directly or from a file.

    Raises:
        CheckpointMismatch: it is not such a state, or has states of more CUDA devices than
            there are here. No random state has changed then.

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
    _set_device_states(state)


@contextmanager
def preserved(*holders: Any) -> Iterator[None]:
    """Restore every random state after the block.

    Args:
        holders: functions or objects whose own generators are restored as well, such as a
            ``torch.Generator`` that a function has as a default.

    Example:
        >>> with preserved():
        ...     a = random.random()
        >>> random.random() == a
        True
    """
    own = [(generator, read_generator(generator)) for generator in generators_of(*holders)]
    # Not with `get_state`, which makes tensors for a file.
    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    devices = _device_states()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        _set_device_states(devices)
        for generator, saved in own:
            write_generator(generator, saved)


def _device_states() -> dict[str, Any]:
    # To start CUDA costs seconds and memory, and before its start it has no state to keep.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return {"cuda": cuda, "mps": mps}


def _set_device_states(state: Mapping[str, Any]) -> None:
    for index, device_state in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(device_state.cpu(), index)
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())


GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""The classes of generators."""


def read_generator(generator: Any) -> Any:
    """Read the state of one generator."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def write_generator(generator: Any, state: Any) -> None:
    """Restore what `read_generator` read."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def generators_of(*holders: Any) -> list[Any]:
    """Find the generators that functions and objects hold.

    Of a function these are its defaults, what it encloses and the global names that it uses, of a
    partial its arguments, of another object its attributes.

    Example:
        >>> generators_of({"seeded": random.Random(0)})  # doctest: +ELLIPSIS
        [<random.Random object at ...>]
    """
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = list(holders)
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or _is_of_a_library(holder):
            continue
        seen.add(id(holder))
        if isinstance(holder, GENERATORS):
            found[id(holder)] = holder
        else:
            waiting += _held_by(holder, is_given=any(holder is given for given in holders))
    return list(found.values())


def _is_of_a_library(holder: Any) -> bool:
    """Whether a function or a class is of a library whose functions hold no generator."""
    module = getattr(holder, "__module__", None) if callable(holder) else None
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


def _held_by(holder: Any, *, is_given: bool) -> list[Any]:
    """Give what a function or a container holds, and the attributes of an object that was given."""
    if isinstance(holder, FunctionType):
        defaults = [*(holder.__defaults__ or ()), *(holder.__kwdefaults__ or {}).values()]
        return [*globals_of(holder).values(), *defaults, *enclosed_by(holder).values()]
    if isinstance(holder, functools.partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    if isinstance(holder, MethodType):
        return [holder.__func__, *getattr(holder.__self__, "__dict__", {}).values()]
    if type(holder) in (list, tuple, dict):
        return list(holder.values() if isinstance(holder, dict) else holder)
    if is_given and not isinstance(holder, type):
        own = list(getattr(holder, "__dict__", {}).values())
        return [*own, type(holder).__call__] if callable(holder) else own
    return []


def derive_seeds(label: str) -> dict[str, int]:
    """Derive a seed for each stream, from its present state and a label, without a draw.

    Returns:
        Seeds of 64 bits for `python`, `numpy` and `torch`: give them to `use_seeds`.

    Example:
        >>> derive_seeds("process 1") == derive_seeds("process 1") != derive_seeds("process 2")
        True
    """
    numpy = np.random.get_state(legacy=False)
    states = {
        "python": repr(random.getstate()).encode(),
        "numpy": repr(numpy["state"]["pos"]).encode() + numpy["state"]["key"].tobytes(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    return {
        name: int.from_bytes(hashlib.blake2b(state + label.encode(), digest_size=8).digest(), "big")
        for name, state in states.items()
    }


def use_seeds(seeds: Mapping[str, int]) -> None:
    """Seed the streams of Python, NumPy and torch (on all devices), each with a seed of its own.

    Example:
        >>> seeds = derive_seeds("after the call")
        >>> use_seeds(seeds)
        >>> a = random.random()
        >>> use_seeds(seeds)
        >>> random.random() == a
        True
    """
    random.seed(seeds["python"])
    np.random.seed([seeds["numpy"] % 2**32, seeds["numpy"] >> 32])
    torch.manual_seed(seeds["torch"] >> 1)


def _checked(state: Mapping[str, Any]) -> tuple[Any, Any]:
    """Load the state into new generators; return the states for Python and for NumPy."""
    if not isinstance(state, Mapping) or sorted(state) != sorted(_KEYS):
        found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointMismatch(f"the random state holds {found}, and not {sorted(_KEYS)}")
    part, saved = "python", state["python"]
    try:
        python = (saved["version"], tuple(saved["words"].tolist()), saved["gauss"])
        random.Random().setstate(python)
        if not isinstance(saved["gauss"], (float, type(None))):
            raise TypeError(f"gauss is {saved['gauss']!r}")
        part, saved = "numpy", state["numpy"]
        words = saved["words"].numpy().astype(np.uint32)
        numpy = ("MT19937", words, saved["pos"], saved["has_gauss"], saved["gauss"])
        np.random.RandomState().set_state(numpy)
        part = "torch"
        torch.Generator().set_state(state["torch"].cpu())
        part = "cuda"
        if not isinstance(state["cuda"], (list, tuple)):
            raise TypeError("it is not a list")
        num_states, num_devices = len(state["cuda"]), torch.cuda.device_count()
        for index, device_state in enumerate(state["cuda"][:num_devices]):
            torch.Generator(f"cuda:{index}").set_state(device_state.cpu())
        part = "mps"
        if state["mps"] is not None and not isinstance(state["mps"], torch.Tensor):
            raise TypeError("it is not a tensor")
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointMismatch(
            f"the random state's part {part!r} is malformed ({error}); "
            "give what deepepochs.rng.get_state() returned"
        ) from error
    if num_states > num_devices:
        raise CheckpointMismatch(
            f"the random state was saved with {num_states} CUDA devices, and there are "
            f"{num_devices} here: resume with as many, or without the random states"
        )
    return python, numpy
