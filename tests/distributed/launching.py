"""Start a script in one or several processes of its own, each with a file for what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_python
from warm_python import WarmPython

SCRIPTS = Path(__file__).parent / "scripts"
SRC = Path(__file__).parents[2] / "src"
# Against a hang alone: no test waits for it.
LIMIT_S = 600
# Two, so that neighbours have different orders of sets of strings, as any two processes have.
WARM = [WarmPython(), WarmPython()]
# Of a launch that the tests themselves are in, and of a device.
DROPPED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTHONHASHSEED")


class Ended(NamedTuple):
    """How a launch ended: what was printed is that of the launcher, then process by process."""

    code: int
    out: str
    err: str


def launch(
    script: str | Path,
    num_processes: int,
    *arguments: object,
    launcher: str = "torchrun",
    cwd: Path | None = None,
    warm: bool = True,
) -> Ended:
    """Run a script of this folder; more time than ``LIMIT_S`` is a failure.

    Args:
        script: file name in ``scripts``, or a path.
        num_processes: 0: without a launcher.
        arguments: of the script.
        launcher: ``'torchrun'`` or ``'accelerate'``.
        cwd: working folder.
        warm: whether the processes may be forks of one that has imported torch already.
    """
    path = script if isinstance(script, Path) else SCRIPTS / script
    warm = warm and warm_python.AVAILABLE and launcher == "torchrun"
    env = {name: value for name, value in os.environ.items() if name not in DROPPED}
    env.update(OMP_NUM_THREADS="1", PYTHONPATH=str(SRC), CUDA_VISIBLE_DEVICES="")
    # Each process writes into files of its own: in one pipe, lines of two can be in each other.
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        command: list[object] = []
        if num_processes and launcher == "torchrun":
            command += [SCRIPTS / "warm_torchrun.py"] if warm else ["-m", "torch.distributed.run"]
            # Standalone picks a free port by itself.
            command += ["--standalone", f"--nproc_per_node={num_processes}"]
            command += [f"--log-dir={folder}", "--redirects=3"]
        elif num_processes:
            command += ["-m", "accelerate.commands.launch", "--cpu", "--num_machines=1"]
            command += [f"--num_processes={num_processes}"]
            command += ["--mixed_precision=no", "--dynamo_backend=no"]
        command += [path, *arguments]
        with (
            (Path(folder) / "stdout.log").open("w") as out,
            (Path(folder) / "stderr.log").open("w") as err,
        ):
            files = {"stdout": out.fileno(), "stderr": err.fileno()}
            if warm:
                servers = [server.address for server in WARM]
                # In another order the next time: no run may hang on an order of sets.
                WARM.reverse()
                env["WARM_PYTHONS"] = " ".join(servers)
                code = warm_ended(servers[-1], command, cwd, env, files)
            else:
                code = ended(command, cwd, env, files)
        printed = [
            "".join(
                file.read_text(errors="replace")
                for file in (Path(folder) / name, *sorted(Path(folder).glob(f"*/*/*/{name}")))
            )
            for name in ("stdout.log", "stderr.log")
        ]
    assert code is not None, (
        f"{path.name} {arguments} hung in {num_processes} processes:\n"
        f"{printed[0][-2000:]}\n{printed[1][-4000:]}"
    )
    return Ended(code, *printed)


def warm_ended(
    server: str, command: list[object], cwd: Path | None, env: dict[str, str], files: dict[str, int]
) -> int | None:
    """The return code of a fork, ``None`` where it hangs."""
    started = warm_python.start(server, command, cwd=cwd, env=env, **files)
    try:
        return started.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        started.close()


def ended(
    command: list[object], cwd: Path | None, env: dict[str, str], files: dict[str, int]
) -> int | None:
    """The return code of a new Python, ``None`` where it hangs."""
    command = [sys.executable, *map(str, command)]
    with subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True, **files) as started:  # type: ignore[call-overload]
        try:
            return started.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            started.terminate()  # torchrun ends its processes first
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
            return None


def results(script: str, num_processes: int, folder: Path, *arguments: object) -> dict[str, Any]:
    """Run a script that writes ``result-<n>.json`` into ``folder``, and read that."""
    file = folder / f"result-{num_processes}.json"
    ended = launch(script, num_processes, file, *arguments)
    assert ended.code == 0, ended.err[-4000:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found
