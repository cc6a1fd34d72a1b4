"""A fork of a warm Python is a process as any other: its own end, output, order and chance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import WARM, warm_python

pytestmark = pytest.mark.skipif(not warm_python.AVAILABLE, reason="needs fork and waitid")


def run(code: str, *arguments: str, server: int = 0) -> subprocess.CompletedProcess[str]:
    return warm_python.run(WARM[server].address, ["-c", code, *arguments])


@pytest.mark.parametrize(
    ("code", "returned"),
    [
        ("pass", 0),
        ("raise SystemExit(143)", 143),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os._exit(7)", 7),
    ],
)
def test_the_return_code_is_that_of_a_new_python(code: str, returned: int) -> None:
    assert run(code).returncode == returned
    real = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=False)
    assert real.returncode == returned


def test_what_is_printed_comes_apart_and_the_interpreter_ends_as_it_does() -> None:
    code = (
        "import atexit, sys, threading; atexit.register(print, 'at the end')\n"
        "late = lambda: threading.main_thread().join() or print('of a thread')\n"
        "threading.Thread(target=late).start()\n"
        "print(*sys.argv); print('wrong', file=sys.stderr)"
    )
    done = run(code, "one", "two")
    assert done.stdout == "-c one two\nof a thread\nat the end\n"
    assert done.stderr == "wrong\n"


def test_an_error_is_shown_with_the_line_of_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nassert __name__ == '__main__'\nsys.stdout.nothing\n")
    done = warm_python.run(WARM[0].address, [script], cwd=tmp_path)
    assert f'File "{script}", line 3, in <module>' in done.stderr
    assert "AttributeError" in done.stderr


def test_folder_environment_and_threads_are_its_own(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ, len(os.listdir('/proc/self/fd')))"
    done = warm_python.run(WARM[0].address, ["-c", code], cwd=tmp_path, env={"A": "b"})
    # Beside its three files there is the folder that is listed.
    assert done.stdout == f"{tmp_path} environ({{'A': 'b'}}) 4\n"


def test_each_draws_numbers_of_its_own() -> None:
    draws = "import random, numpy; print(random.random(), numpy.random.rand())"
    assert len({run(draws).stdout for _ in range(3)}) == 3


def test_neighbours_have_sets_in_different_orders() -> None:
    names = "print(list({str(i) for i in range(100)}))"
    assert run(names).stdout == run(names).stdout
    assert run(names, server=0).stdout != run(names, server=1).stdout


def test_a_script_is_killed_with_those_it_started_when_its_starter_is_gone(
    tmp_path: Path,
) -> None:
    # The other end of the pipe is closed when the last of the two has ended.
    reading, writing = os.pipe()
    code = "import os, signal; os.fork(); print('runs', flush=True); signal.pause()"
    with os.fdopen(reading) as lines:
        started = warm_python.start(WARM[0].address, ["-c", code], stdout=writing, stderr=writing)
        os.close(writing)
        assert [lines.readline(), lines.readline()] == ["runs\n", "runs\n"]
        assert started.poll() is None
        started.close()
        assert lines.read() == ""
