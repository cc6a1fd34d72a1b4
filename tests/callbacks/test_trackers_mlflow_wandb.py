"""`TrackerCallback` with MLflow and W&B themselves: real fits, and what they have stored.

They are skipped where these are not installed: ``pip install -e ".[test-trackers]"``.
"""

from __future__ import annotations

import importlib
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
from event_reader import assert_same_bits, loaders, run_bits, small_trainer

from deepepochs import Callback, CheckCallback, TrackerCallback

# MLflow still uses what SQLAlchemy will remove.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

HEADER_SIZE = 7
"""Bytes of the header of a file of W&B, and of that of each record in it."""

BLOCK_SIZE = 32 * 1024


def import_or_skip(name: str) -> Any:
    """Import what may be missing; what it warns of while it is loaded is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name)
        return importlib.import_module(name)


def fit_and_test(callback: TrackerCallback) -> tuple[Any, dict[str, Any]]:
    params = {"lr": 0.1, "dims": (6, 3), "seed": None}
    trainer = small_trainer(callbacks=callback, hyper_params=params, running_id="first-run")
    history = trainer.fit(*loaders())
    results = trainer.test(loaders()[1])
    callback.finish()
    return history, results


# --- MLflow on a file of SQLite


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)  # it puts the folder of artifacts there
    import_or_skip("sqlalchemy")
    import_or_skip("alembic")
    return import_or_skip("mlflow")


def only_run(mlflow: Any, project: str) -> Any:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(project)
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def history_of(mlflow: Any, run: Any, name: str) -> list[tuple[int, float]]:
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    return sorted((entry.step, entry.value) for entry in found)


def test_mlflow_has_the_parameters_the_epochs_and_the_results(mlflow: Any) -> None:
    history, results = fit_and_test(TrackerCallback("mlflow", project="digits"))
    run = only_run(mlflow, "digits")
    assert run.info.run_name == "first-run"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "dims": "(6, 3)", "seed": "None"}
    for stage in ("train", "val"):
        for metric in ("loss", "accuracy"):
            values = [float(value) for value in history[stage][metric]]
            expected = [(1, values[0]), (2, values[1])]
            assert history_of(mlflow, run, f"{metric}/{stage}") == expected
    assert history_of(mlflow, run, "learning_rate_0") == [(1, 0.1), (2, 0.1)]
    assert history_of(mlflow, run, "loss/test") == [(2, float(results["loss"]))]


def test_mlflow_gets_batches_and_a_name_if_asked(mlflow: Any) -> None:
    fit_and_test(TrackerCallback("mlflow", "digits", every_n_batches=4, run_name="mine"))
    run = only_run(mlflow, "digits")
    assert run.info.run_name == "mine"
    steps = [step for step, _ in history_of(mlflow, run, "loss/batch/train")]
    assert steps == [1, 5, 9]
    assert history_of(mlflow, run, "epoch") == [(6, 1.0), (12, 2.0)]


def test_mlflow_changes_no_bit(mlflow: Any) -> None:
    callback = TrackerCallback("mlflow", every_n_batches=1)
    assert_same_bits(run_bits(callbacks=callback), run_bits())
    callback.finish()


class Stops(Callback):
    def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
        if epoch_idx == 0:
            raise MemoryError


def test_a_resumed_run_is_one_run_of_mlflow(mlflow: Any, tmp_path: Path) -> None:
    def trainer(*more: Callback, **options: Any) -> Any:
        check = CheckCallback("loss", ckpt_dir=tmp_path / "logs", every_n_batches=1)
        callbacks = [check, TrackerCallback("mlflow", project="digits"), *more]
        return small_trainer(callbacks=callbacks, running_id="a", **options)

    with pytest.raises(MemoryError):
        trainer(Stops()).fit(*loaders())
    resumed = trainer(resume="auto")
    resumed.fit(*loaders())
    resumed.callbacks[-1].finish()
    run = only_run(mlflow, "digits")
    assert sorted({step for step, _ in history_of(mlflow, run, "loss/train")}) == [1, 2]


def test_mlflow_takes_metrics_of_any_name_and_size(mlflow: Any) -> None:
    def odd(preds: Any, targets: Any) -> Any:
        return preds.new_zeros(1200)

    odd.__name__ = "acc@1 (%)"
    callback = TrackerCallback("mlflow", project="digits")
    params = {"lr (µ)": float("nan"), "text": "x" * 9999}
    trainer = small_trainer(callbacks=callback, metrics=[odd], epochs=1, hyper_params=params)
    trainer.fit(*loaders())
    callback.finish()
    run = only_run(mlflow, "digits")
    assert {"acc_1_0/train", "acc_1_1199/val"} <= set(run.data.metrics)
    assert run.data.params == {"lr_µ": "nan", "text": "x" * 500}


# --- W&B in files


@pytest.fixture
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import_or_skip("wandb")
    return tmp_path


def read_records(folder: Path) -> list[Any]:
    """The records of the only run: a log of LevelDB, each entry a message of W&B."""
    messages = import_or_skip("wandb.proto.wandb_internal_pb2")
    import_or_skip("wandb").teardown()  # waits until its own process has written all
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    assert len(content) < BLOCK_SIZE  # so that no record is split
    place, records = HEADER_SIZE, []
    while place < len(content):
        _, size, kind = struct.unpack_from("<IHB", content, place)
        assert kind == 1
        place += HEADER_SIZE
        records.append(messages.Record.FromString(content[place : place + size]))
        place += size
    return records


def values_of(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def entries_of(records: list[Any]) -> dict[int, dict[str, Any]]:
    rows = [record.history for record in records if record.WhichOneof("record_type") == "history"]
    return {
        row.step.num: {k: v for k, v in values_of(row.item).items() if not k.startswith("_")}
        for row in rows
    }


def test_wandb_has_the_parameters_the_epochs_and_the_results(wandb_folder: Path) -> None:
    history, results = fit_and_test(
        TrackerCallback("wandb", project="digits", dir=str(wandb_folder))
    )
    records = read_records(wandb_folder)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("digits", "first-run")
    config: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "config":
            config |= values_of(record.config.update)
    assert {k: v for k, v in config.items() if not k.startswith("_")} == {
        "lr": 0.1, "dims": "(6, 3)", "seed": None,
    }  # fmt: skip
    entries = entries_of(records)
    assert sorted(entries) == [1, 2]
    for index, entry in enumerate(entries.values()):
        for stage in ("train", "val"):
            assert entry[f"loss/{stage}"] == float(history[stage]["loss"][index])
            assert entry[f"accuracy/{stage}"] == float(history[stage]["accuracy"][index])
        assert entry["learning_rate_0"] == 0.1
    assert entries[2]["accuracy/test"] == float(results["accuracy"])


def test_wandb_drops_no_epoch_where_it_gets_batches(wandb_folder: Path) -> None:
    fit_and_test(TrackerCallback("wandb", "digits", every_n_batches=4, dir=str(wandb_folder)))
    entries = entries_of(read_records(wandb_folder))
    assert [step for step, row in entries.items() if "loss/batch/train" in row] == [1, 5, 9]
    assert {step: row["epoch"] for step, row in entries.items() if "loss/val" in row} == {
        6: 1,
        12: 2,
    }
    assert "accuracy/test" in entries[12]


def test_wandb_changes_no_bit(wandb_folder: Path) -> None:
    callback = TrackerCallback("wandb", every_n_batches=1, dir=str(wandb_folder))
    assert_same_bits(run_bits(callbacks=callback), run_bits())
    callback.finish()
