"""Starts the runs of a check, each in a new process: those of the script do not change.

Where the script runs in several processes, each of them starts one, and these join in a process
group of their own.
"""

from __future__ import annotations

import gc
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
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from .. import rng
from ..checkpoint.file import load
from ..errors import CheckpointError, ConfigError, LoopException
from .probe import Refusal, make_run

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from ..contracts import TrainerView


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
            CheckpointError: the run failed; the message has the traceback.
            ConfigError: the fit was refused before its first mini-batch.
        """
        target, fault = self._folder / f"{name}.ckpt", self._folder / f"{name}.txt"
        source = None if resume_from is None else self._folder / f"{resume_from}.ckpt"
        counts = (read_after, stop_after)
        job = (self._trainer, self._options, counts, target, source, rng.get_state())
        meets = None if self._address is None else (*self._address, name)
        is_fork = self._context.get_start_method() == "fork"
        code = _ended(self._context, (fault, meets, job if is_fork else pickle.dumps(job)))
        outcome: tuple[float, str, str] | None = None
        if fault.exists():
            when_s, kind, text = fault.read_text("utf-8").split("\n", 2)
            outcome = (float(when_s), kind, text)
        elif not target.exists():
            outcome = (time.time(), "failed", f"exit {code}")
        self._agree(name, outcome)
        return load(target)

    def _agree(self, name: str, outcome: tuple[float, str, str] | None) -> None:
        """Raise in all processes if a run has failed in one: the first one that has failed."""
        runtime = self._trainer.runtime
        found = runtime.gather_objects(outcome, "ends a run of verify_resume")
        failed = [(of, rank) for rank, of in enumerate(found) if of is not None]
        if not failed:
            return
        (_, kind, text), rank = min(failed)
        where = f" in process {rank}" if len(found) > 1 else ""
        if kind == "refused":
            raise ConfigError(f"verify_resume: {text}")
        raise CheckpointError(f"The run {name!r} of verify_resume failed{where}:\n{text}")


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


def _ended(context: BaseContext, arguments: tuple[Any, ...]) -> int | None:
    """Start a process, wait for its end, and return its exit code."""
    process = context.Process(target=_begin, args=arguments)  # type: ignore[attr-defined]
    with _same_places_in_files():
        with warnings.catch_warnings(), _no_collection():
            # Python warns of a fork beside threads. The child uses one thread and none of their
            # locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        try:
            process.join()
        finally:
            if process.is_alive():
                process.kill()
                process.join()
    code: int | None = process.exitcode
    return code


def _begin(fault: Path, meets: tuple[str, int, str] | None, job: tuple[Any, ...] | bytes) -> None:
    """Make one run, in the new process; write the time, the kind and the text of a failure.

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
        fault.write_text(f"{time.time()}\nrefused\n{error}", "utf-8")
    except BaseException:
        fault.write_text(f"{time.time()}\nfailed\n{traceback.format_exc()}", "utf-8")


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


def _meet(trainer: TrainerView, host: str, port: int, name: str) -> None:
    """Join the new processes of a run."""
    from ..runtime.gloo import join_forks

    runtime: Any = trainer.runtime
    of_torch: Any = distributed
    store = of_torch.TCPStore(host, port, is_master=False, wait_for_workers=False)
    join_forks(of_torch.PrefixStore(name, store), runtime.rank, runtime.num_processes)
    runtime.rejoin(trainer.model)


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
