"""Starts the runs of a check, each in a new process: those of the script do not change.

Where the script runs in several processes, each of them starts one, and these join in a process
group of their own.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import stat
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import distributed

from .. import rng
from ..checkpoint.file import load
from ..errors import ConfigError, LoopException
from .failures import Failure, described, failure_of_run
from .probe import Refusal, make_run

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from ..contracts import TrainerView


APART = "apart"
JOIN_S = 60
ATTEMPTS = 3
Meets: TypeAlias = "tuple[str, int, str, Path]"
"""Where new processes meet: host, port, the name of the run, and the file that says they have."""


class Starter:
    """Starts runs of a trainer; in several processes all make it and call it together.

    Args:
        trainer: of the script.
        options: the arguments of the fit.
        folder: for the files of this process.

    Raises:
        LoopException: processes cannot be started.
    """

    def __init__(self, trainer: TrainerView, options: dict[str, Any], folder: Path) -> None:
        self._context = choose_context(trainer, options)
        self._trainer = trainer
        self._options = options
        self._folder = folder
        self._server, self._address = _meeting_place(trainer)

    def run(
        self, name: str, read_after: int, stop_after: int, resume_from: str | None = None
    ) -> dict[str, Any]:
        """Make one run, and return what its probe saved.

        Raises:
            CheckpointError: the run failed; the traceback is in its cause.
            ConfigError: the fit was refused before its first mini-batch.
        """
        target, fault = self._folder / f"{name}.ckpt", self._folder / f"{name}.txt"
        source = None if resume_from is None else self._folder / f"{resume_from}.ckpt"
        job = (self._trainer, self._options, (read_after, stop_after), target, source)
        for attempt in range(ATTEMPTS):
            meets = None
            if self._address is not None:
                meets = (*self._address, f"{name} {attempt}", self._folder / f"{name} {attempt}")
            outcome = self._outcome(fault, meets, (*job, rng.get_state()))
            is_last, resumes = attempt == ATTEMPTS - 1, source is not None
            if not self._agree(name, outcome, is_last=is_last, resumes=resumes):
                break
        return load(target)

    def _outcome(self, fault: Path, meets: Meets | None, job: tuple[Any, ...]) -> Failure | None:
        """Run once in a new process; say how it failed."""
        is_fork = self._context.get_start_method() == "fork"
        arguments = (fault, meets, job if is_fork else pickle.dumps(job))
        code = _ended(self._context, arguments, None if meets is None else meets[-1])
        if fault.exists():
            return Failure(*json.loads(fault.read_text("utf-8")))
        if meets is not None and not meets[-1].exists():
            return Failure(time.time(), APART, f"the new processes did not join in {JOIN_S} s.")
        ended = f"its process ended with the exit code {code}."
        return None if job[3].exists() else Failure(time.time(), "failed", ended)

    def _agree(self, name: str, outcome: Failure | None, *, is_last: bool, resumes: bool) -> bool:
        """Say in all processes whether to try again, or raise: what has failed first in one."""
        runtime = self._trainer.runtime
        found = runtime.gather_objects(outcome, "ends a run of verify_resume")
        failed = [(of, rank) for rank, of in enumerate(found) if of is not None]
        if not failed:
            return False
        if not is_last and all(of.kind == APART for of, _ in failed):
            return True
        first, rank = min(failed)
        if first.kind == "refused":
            raise ConfigError(f"verify_resume: {first.text}")
        raise failure_of_run(name, first, rank if len(found) > 1 else None, resumes=resumes)


def choose_context(trainer: TrainerView, options: Mapping[str, Any]) -> BaseContext:
    """Choose to fork processes, which needs no pickling, unless CUDA is in use.

    Raises:
        LoopException: they cannot be forked, and the trainer or its data cannot be pickled, or
            the script runs in several processes.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    is_cuda_used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if can_fork and not is_cuda_used:
        return multiprocessing.get_context("fork")
    why = "CUDA is in use" if can_fork else "This system cannot fork"
    if trainer.runtime.num_processes > 1:
        raise LoopException(
            f"verify_resume starts new processes. {why}, and in a run of several processes nothing "
            "but forks can take their places: verify on CPUs, with Accelerator(cpu=True)."
        )
    try:
        pickle.dumps((trainer, dict(options)))
    except Exception as error:  # pickling runs any code
        raise LoopException(
            f"verify_resume starts new processes. {why}, so the trainer and its data are sent to "
            f"them, and these cannot be pickled: {error}. Define classes and functions in a "
            "module, or verify with device='cpu' before CUDA is used."
        ) from error
    return multiprocessing.get_context("spawn")


def _ended(context: BaseContext, arguments: tuple[Any, ...], joined: Path | None) -> int | None:
    """Start a process, wait for its end, and return its exit code.

    It is ended if it is to make the file ``joined`` and does not.
    """
    if joined is not None:
        _wait_for_gloo()
    process = context.Process(target=_begin, args=arguments)  # type: ignore[attr-defined]
    with _same_places_in_files():
        with warnings.catch_warnings(), _no_collection():
            # Python warns of a fork beside threads. The child uses one thread and none of their
            # locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        try:
            process.join(None if joined is None else JOIN_S)
            if joined is not None and joined.exists():
                process.join()
        finally:
            if process.is_alive():
                process.kill()
                process.join()
    code: int | None = process.exitcode
    return code


def _wait_for_gloo() -> None:
    """Wait until no thread of gloo runs.

    It ends an exchange a moment after the exchange, and holds locks. A fork in that moment would
    wait for them for ever.
    """
    quiet, tasks = 0, Path("/proc/self/task")
    while quiet < 3:
        time.sleep(0.02)
        is_idle = not tasks.is_dir() or all(map(_is_idle, tasks.iterdir()))
        quiet = quiet + 1 if is_idle else 0


def _is_idle(thread: Path) -> bool:
    """Whether a thread of this process, by its folder in ``/proc``, is not one of gloo that runs."""
    with suppress(OSError):  # it has ended
        if "gloo_runloop" in (thread / "comm").read_text():
            return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    return True


def _begin(fault: Path, meets: Meets | None, job: tuple[Any, ...] | bytes) -> None:
    """Make one run, in the new process; write how it failed.

    A job that is not inherited comes in bytes: torch would have processes share the tensors that
    they are sent, and the run would train the weights of the script.
    """
    # What the parent has dropped may be a group of processes, or an iterator with workers: to
    # collect one waits for threads that are not in a fork, or ends the parent's workers.
    gc.freeze()
    gc.enable()
    try:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            # OpenMP's threads do not survive a fork, and to wait for them never ends.
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            trainer, *others = pickle.loads(job) if isinstance(job, bytes) else job
            if meets is not None:
                _meet(trainer, *meets)
            make_run(trainer, *others)
    except Refusal as error:
        fault.write_text(json.dumps(Failure(time.time(), "refused", str(error))), "utf-8")
    except BaseException as error:
        failure = Failure(time.time(), "failed", described(error), traceback.format_exc())
        fault.write_text(json.dumps(failure), "utf-8")


def _meeting_place(trainer: TrainerView) -> tuple[Any, tuple[str, int] | None]:
    """Open a store in the first process, in which the new processes meet; give it and its place."""
    runtime = trainer.runtime
    if runtime.num_processes == 1:
        return None, None
    host = os.environ.get("MASTER_ADDR", "localhost")
    server = None
    if runtime.is_main:
        of_torch: Any = distributed
        server = of_torch.TCPStore(host, 0, is_master=True, wait_for_workers=False)
    port = None if server is None else server.port
    place = runtime.gather_objects((host, port), "begins verify_resume")[0]
    return server, place


def _meet(trainer: TrainerView, host: str, port: int, name: str, joined: Path) -> None:
    """Join the new processes of a run, and make the file ``joined``."""
    from ..runtime.gloo import join_forks

    runtime: Any = trainer.runtime
    of_torch: Any = distributed
    store = of_torch.TCPStore(host, port, is_master=False, wait_for_workers=False)
    join_forks(of_torch.PrefixStore(name, store), runtime.rank, runtime.num_processes)
    runtime.rejoin(trainer.model)
    joined.touch()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Have nothing collected, also not in a fork until it allows that."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _same_places_in_files() -> Iterator[None]:
    """Put the places in open files back: a fork has the same ones, and reading there moves them."""
    places: dict[int, int] = {}
    listing = Path("/dev/fd")
    for path in listing.iterdir() if listing.is_dir() else ():
        descriptor = int(path.name)
        with suppress(OSError):  # the listing itself was open
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) if is_file else os.O_WRONLY
            if not mode & (os.O_WRONLY | os.O_APPEND):
                places[descriptor] = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        yield
    finally:
        for descriptor, place in places.items():
            os.lseek(descriptor, place, os.SEEK_SET)
