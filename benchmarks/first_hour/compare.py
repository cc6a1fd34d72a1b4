"""Compares the programs of this folder: their lines, an exact resume, the metric of two processes.

    python benchmarks/first_hour/compare.py

Lines are those of the program that are not empty, without the data, the model and the loss, which
all share. A resume is exact if the weights of the run that was killed in the middle of the third
epoch, and started again, are to the bit those of the run that was not. The metric is the accuracy
of the first weights on 501 samples in two processes, against that of one. Needed beside what
`make bench` installs: keras and mlxtend.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ["by_hand", "lightning", "keras", "fastai", "deepepochs"]
KILL_AT = 2 * 125 + 60
RUN = """
import sys; sys.path.insert(0, {here!r})
import torch, with_{name} as program
{body}
"""
TRAIN = "print('RESULT', float(program.train()))"
RESUME = """
torch.manual_seed(1)
model = program.train_and_resume()
weights = model.weights if hasattr(model, 'weights') else model.parameters()
import hashlib
bits = b''.join(w.detach().numpy().tobytes() if hasattr(w, 'detach') else w.value.detach().numpy().tobytes() for w in weights)
print('RESULT', hashlib.sha256(bits).hexdigest())
"""
PROCESSES = "print('RESULT', program.validate_in_processes())"


def lines_of(name: str) -> dict[str, int]:
    """Count the lines of each part of a program."""
    counts: dict[str, int] = {}
    part = None
    for line in (HERE / f"with_{name}.py").read_text().splitlines():
        if line.startswith("# begin: "):
            part = line.removeprefix("# begin: ")
        elif line.startswith("# end"):
            part = None
        elif part is not None and line.strip():
            counts[part] = counts.get(part, 0) + 1
    return counts


def run(name: str, body: str, folder: str, processes: int = 1, **env: str) -> str:
    """Run a part of a program in a process of its own; give its result, or how it ended."""
    code = RUN.format(here=str(HERE), name=name, body=body)
    script = Path(folder) / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    if processes > 1 and name == "deepepochs":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes),
                   "--master_port", "29531", str(script)]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PROCESSES": str(processes), "CUDA_VISIBLE_DEVICES": "", **env},
    )  # fmt: skip
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if results:
        return results[0].removeprefix("RESULT ")
    return f"ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"


def main() -> None:
    """Print a row for each program as JSON."""
    for name in sys.argv[1:] or PROGRAMS:
        row: dict[str, object] = {"program": name, "lines": lines_of(name)}
        with tempfile.TemporaryDirectory() as folder:
            row["test accuracy"] = run(name, TRAIN, folder)
        ends = []
        for kill_at in (None, None, KILL_AT):
            with tempfile.TemporaryDirectory() as folder:
                if kill_at is not None:
                    killed = run(name, RESUME, folder, KILL_AT=str(kill_at))
                    row["killed"] = killed
                ends.append(run(name, RESUME, folder))
        if any(end.startswith("ended") for end in ends):
            raise RuntimeError(f"{name}: {ends}")
        row["runs of one seed are equal"] = ends[0] == ends[1]
        row["resume is exact"] = ends[0] == ends[2]
        if name in ("lightning", "deepepochs"):
            for processes in (1, 2):
                with tempfile.TemporaryDirectory() as folder:
                    found = run(name, PROCESSES, folder, processes)
                    row[f"accuracy of {processes}"] = found
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
