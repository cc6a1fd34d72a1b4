"""``import deepepochs`` is light, and gives what it says."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import deepepochs

HEAVY = (
    "accelerate",
    "matplotlib",
    "mlxtend",
    "pandas",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
    "torch_geometric",
    "torchdata",
    "torchmetrics",
    "tqdm",
    "yaml",
)
ALIASES = ("metrics", "loops", "tools", "patches", "optimizer", "callbacks", "trainer")


def loaded_by(code: str) -> set[str]:
    """Names of the modules in a fresh process after ``code``."""
    report = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    # What torch itself loads is not our price.
    ours = loaded_by("import torch; import deepepochs") - loaded_by("import torch")
    assert "deepepochs" in ours
    assert not ours & set(HEAVY)


def test_what_a_plain_fit_does_not_need_is_loaded_on_demand() -> None:
    code = "import deepepochs as d; import torch; d.Trainer(torch.nn.Linear(1, 1))"
    loaded = {name.removeprefix("deepepochs.") for name in loaded_by(code)}
    assert {"trainer", "callbacks.console", "run"} <= loaded
    late = {"nest.compare", "state.parts", "report", "verify", "legacy.yaml", "tools"}
    late |= {f"callbacks.{name}" for name in ("check", "interpret", "log", "report", "timing")}
    assert not loaded & late


@pytest.mark.parametrize("name", ["checkpoint", "tools", "callbacks.check", "patches"])
def test_a_submodule_is_there_when_it_is_asked_for(name: str) -> None:
    assert f"deepepochs.{name}" in loaded_by(f"import deepepochs; deepepochs.{name}")


@pytest.mark.parametrize("name", ["Trianer", "_hidden", "callbacks.chek"])
def test_what_is_not_there_is_an_attribute_error(name: str) -> None:
    *packages, last = ["deepepochs", *name.split(".")]
    with pytest.raises(AttributeError, match=f"has no attribute '{last}'"):
        getattr(importlib.import_module(".".join(packages)), last)


def test_dir_lists_what_is_loaded_on_demand() -> None:
    assert set(deepepochs.__all__) <= set(dir(deepepochs))


@pytest.mark.parametrize("name", deepepochs.__all__)
def test_every_name_in_all_is_there(name: str) -> None:
    assert getattr(deepepochs, name) is not None


def test_no_name_is_listed_twice() -> None:
    assert len(deepepochs.__all__) == len(set(deepepochs.__all__))


@pytest.mark.parametrize("name", ALIASES)
def test_the_submodules_of_0_6_import_under_their_names(name: str) -> None:
    module = importlib.import_module(f"deepepochs.{name}")
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"deepepochs.{name}.__all__ names {public}"


def test_a_star_import_gives_the_names_and_no_more() -> None:
    namespace: dict[str, object] = {}
    exec("from deepepochs import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(deepepochs.__all__)


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert deepepochs.__version__ == version("deepepochs")
