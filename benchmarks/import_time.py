"""Start-up: ``import deepepochs`` beyond ``import torch``, and a fit beyond its steps."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

# Torch leaves so many objects that a collection of the garbage is due, which looks at all of them for
# about 100 ms. It falls into whatever is imported next, and is not its price.
PROGRAM = """
import gc
import time
first = time.process_time()
import torch, numpy
gc.collect()
second = time.process_time()
import deepepochs
print((second - first) * 1e3, (time.process_time() - second) * 1e3)
"""


def import_ms(rounds: int) -> tuple[list[float], list[float]]:
    """Processor time of ``import torch``, and of ``import deepepochs`` after it, in milliseconds."""
    command = [sys.executable, "-c", PROGRAM]
    # A script compiles the modules at its first start only, also where this process may not
    # write what it compiles.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as cache:
        env["PYTHONPYCACHEPREFIX"] = cache
        outputs = [
            subprocess.run(command, capture_output=True, check=True, text=True, env=env).stdout
            for _ in range(rounds + 1)
        ]
    lines = [output.split() for output in outputs[1:]]
    return sorted(float(line[0]) for line in lines), sorted(float(line[1]) for line in lines)


def fit_ms(number: int) -> float:
    """Processor time of one warm fit of W4 with ``number`` mini-batches, in milliseconds."""
    from workloads import cross_entropy, make

    from deepepochs import Trainer

    work = make("W4", number)
    trainer = Trainer(work.model, cross_entropy, work.opt, epochs=1)
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.process_time()
        trainer.fit(work.train)
        return (time.process_time() - began) * 1e3


def start_ms(rounds: int = 40) -> float:
    """What a fit of 20 steps takes beyond its steps: two fits tell the two apart."""
    fit_ms(20)
    pairs = [(fit_ms(20), fit_ms(220)) for _ in range(rounds)]
    short, long = min(short for short, _ in pairs), min(long for _, long in pairs)
    return short - (long - short) / 200 * 20


def table(rounds: int) -> str:
    """Measure and give the figures as a Markdown table."""
    torchs, imports = import_ms(rounds)
    return "\n".join(
        [
            "| what | ms | goal |",
            "| --- | --- | --- |",
            f"| `import torch` | {statistics.median(torchs):.0f} "
            f"({torchs[0]:.0f}-{torchs[-1]:.0f}) | |",
            f"| `import deepepochs` after `import torch` | {statistics.median(imports):.0f} "
            f"({imports[0]:.0f}-{imports[-1]:.0f}) | 60 |",
            f"| a warm fit of 20 steps, beyond its steps | {start_ms():.1f} | 3 |",
        ]
    )
