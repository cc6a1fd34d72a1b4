"""Start Python scripts as forks of a Python that has imported torch already.

Importing torch and what a first step needs takes 3 s of a core for each process, and the tests
start some hundred. Here a server imports once, and forks for each script: what runs is a process
of its own, whose interpreter ends as any other does. Tests about imports, about the start of a
process or about its heap start a real one.

    python warm_python.py ADDRESS [PRELUDE]    is the server; `WarmPython` starts it

Forks of one server have the same order of sets of strings. Processes that work together take
theirs from several servers, lest a fault that only shows where orders differ is never seen.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import types
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AVAILABLE = hasattr(os, "fork") and hasattr(os, "waitid")
SRC = Path(__file__).parents[1] / "src"
# Against a hang alone: no test waits for it.
LIMIT_S = 600
IMPORTED = (
    "torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.run",
    "torch.utils.tensorboard", "accelerate", "matplotlib.pyplot", "torchmetrics", "sklearn",
    "deepepochs",
)  # fmt: skip


# A process id, then its return code.
NUMBER = struct.Struct("=i")


class Started:
    """A script that runs, with the names of ``subprocess.Popen``.

    Its process id is its own until its end has been asked for; a script whose starter is gone
    is killed.
    """

    def __init__(self, server: str, request: dict[str, Any], files: Sequence[int]) -> None:
        self.args = request["arguments"]
        self.returncode: int | None = None
        self._server = socket.socket(socket.AF_UNIX)
        self._server.settimeout(LIMIT_S)  # a server that hangs must not hang the tests
        self._server.connect(server)
        socket.send_fds(self._server, [b"f"], list(files))
        with self._server.makefile("w") as writing:
            writing.write(json.dumps(request) + "\n")
        self.pid = self._answer()
        self._server.settimeout(None)  # of its end, `wait` has a limit

    def poll(self) -> int | None:
        """Its return code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give its return code."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._server, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._answer()
            self.close()
        return self.returncode

    def close(self) -> None:
        """Kill it and what it started in its session, if it has not ended."""
        self._server.close()

    def _answer(self) -> int:
        answer: int
        (answer,) = NUMBER.unpack(self._server.recv(NUMBER.size, socket.MSG_WAITALL))
        return answer


class WarmPython:
    """A server, started with the first script.

    Args:
        options: of the interpreter, as ``-W error``; they are the scripts', too.
        prelude: code that the server runs once, for all its scripts.
    """

    def __init__(self, *options: str, prelude: str = "") -> None:
        self._options = options
        self._prelude = prelude
        self._address = ""

    @property
    def address(self) -> str:
        """Where the server listens."""
        if not self._address:
            self._address = str(Path(tempfile.mkdtemp(prefix="warm-python-")) / "server")
            # With the same seed all servers would have the same order of sets.
            own = {k: value for k, value in os.environ.items() if k != "PYTHONHASHSEED"}
            # It ends, and removes its folder, when this pipe is closed: when this process ends.
            self._process = process = subprocess.Popen(
                [sys.executable, *self._options, __file__, self._address, self._prelude],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**own, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
                text=True,
                start_new_session=True,
            )
            assert process.stdout is not None
            with process.stdout as stdout:
                assert select.select([stdout], [], [], LIMIT_S)[0], "warm Python hangs"
                assert stdout.readline() == "ready\n", "the server of warm Python did not start"
            atexit.register(self._end)
        return self._address

    def _end(self) -> None:
        """End the server; a process that is left running would be warned of."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)


def start(
    server: str,
    arguments: Sequence[object],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int,
    stderr: int,
) -> Started:
    """Start a script of a server.

    Args:
        server: the address.
        arguments: what follows ``python``: a script or ``-c CODE``, and its arguments.
        cwd: working folder.
        env: environment; that of this process by default.
        stdout: file to print to, as a number.
        stderr: the same for errors.
    """
    with Path(os.devnull).open() as nothing:
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        return Started(server, request, [nothing.fileno(), stdout, stderr])


def run(
    server: str,
    arguments: Sequence[object],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, as ``subprocess.run`` with its output captured."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        started = start(
            server, arguments, cwd=cwd, env=env, stdout=out.fileno(), stderr=err.fileno()
        )
        try:
            code = started.wait(LIMIT_S)
        finally:
            started.close()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(started.args, code, out.read(), err.read())


class Server:
    """Forks for each connection, and tells it how the fork has ended."""

    def __init__(self, address: str) -> None:
        self._folder = Path(address).parent
        self._children: dict[socket.socket, int] = {}
        self._told: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        # A pipe of signals, so that the end of a child is an event as any other.
        self._waking, self._woken = socket.socketpair()
        for side in (self._waking, self._woken):
            side.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self._listener, self._woken, sys.stdin):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Serve until stdin is closed; in a fork, come back with what it is to run."""
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                if source is sys.stdin:
                    for client in list(self._children):
                        self._forget(client)
                    self.close()
                    shutil.rmtree(self._folder)
                    return None
                if source is self._listener:
                    request = self._fork()
                    if request is not None:
                        return request
                elif source is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._tell_ends()
                elif isinstance(source, socket.socket) and source in self._children:
                    self._forget(source)  # a client says nothing after its request: it is gone

    def close(self) -> None:
        """Give all files back, in a fork or at the end."""
        self._selector.close()
        for own in (self._listener, self._waking, self._woken, *self._children):
            own.close()

    def _fork(self) -> dict[str, Any] | None:
        client, _ = self._listener.accept()
        _, files, _, _ = socket.recv_fds(client, 1, 3)
        with client.makefile("r") as reading:
            request: dict[str, Any] = json.loads(reading.readline())
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.close()
            client.close()
            return {**request, "files": files}
        for file in files:
            os.close(file)
        self._children[client] = pid
        self._selector.register(client, selectors.EVENT_READ)
        client.sendall(NUMBER.pack(pid))
        return None

    def _tell_ends(self) -> None:
        for client, pid in self._children.items():
            # It stays a zombie until the client has gone: nobody else has its number meanwhile.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None and pid not in self._told:
                self._told.add(pid)
                exited = ended.si_code == os.CLD_EXITED
                code = ended.si_status if exited else -ended.si_status
                with contextlib.suppress(BrokenPipeError):
                    client.sendall(NUMBER.pack(code))

    def _forget(self, client: socket.socket) -> None:
        pid = self._children.pop(client)
        self._selector.unregister(client)
        client.close()
        if pid not in self._told:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._told.discard(pid)


def become(request: dict[str, Any]) -> types.CodeType:
    """Make this fork the process of its script, and give the code to run."""
    os.setsid()
    for target, file in enumerate(request["files"]):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    arguments = request["arguments"]
    unbuffered = arguments[0] == "-u"
    arguments = arguments[unbuffered:]
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout = os.fdopen(1, "w", encoding=encoding)
    sys.stdout.reconfigure(write_through=unbuffered)
    sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace")
    sys.stderr.reconfigure(line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    # Otherwise all forks would draw the same "random" numbers where nobody has set a seed.
    for module in ("random", "numpy.random"):
        sys.modules[module].seed()
    # Temporary folders that modules made when they were imported are the server's to remove.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if arguments[0] == "-c":
        name, source = "<string>", arguments[1]
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
    else:
        name, source = arguments[0], Path(arguments[0]).read_text(encoding="utf-8")
        sys.argv, sys.path[0] = arguments, str(Path(name).resolve().parent)
        vars(main)["__file__"] = name
    return compile(source, name, "exec")


def main() -> None:
    """Be the server, or a script in a fork of it."""
    for name in IMPORTED:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    library = sys.modules["deepepochs"]
    for name in library.__all__:
        getattr(library, name)
    address, prelude = sys.argv[1:]
    exec(prelude, {})
    server = Server(address)
    print("ready", flush=True)
    # What is there now is never looked at again, which leaves its pages shared with the forks.
    gc.collect()
    gc.freeze()
    request = server.serve()
    if request is not None:
        del server
        code = become(request)
        exec(code, vars(sys.modules["__main__"]))


if __name__ == "__main__":
    main()
