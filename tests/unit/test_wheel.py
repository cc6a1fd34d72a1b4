"""The wheel is whole: built, installed into an empty environment, trained with."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TRAIN = """
import sys
from pathlib import Path
import deepepochs, torch
from torch.utils.data import DataLoader, TensorDataset

assert Path(deepepochs.__file__).is_relative_to(sys.prefix), deepepochs.__file__
model = torch.nn.Linear(3, 2)
loader = DataLoader(TensorDataset(torch.randn(8, 3), torch.randint(2, (8,))), batch_size=4)
trainer = deepepochs.Trainer(model, torch.nn.functional.cross_entropy, epochs=1, device="cpu")
history = trainer.fit(loader, loader)
assert "color-scheme" in trainer.report("report.html").read_text()
print("trained", deepepochs.__version__, *history)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, without the network."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    run(*build, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_the_typing_mark(wheel: Path) -> None:
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wanted | {"deepepochs/py.typed", "deepepochs/report/page.css"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_links_of_the_readme_work_on_the_package_index(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    readme = archive.read(name).decode().partition("\n\n")[2]
    links = re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', readme)
    assert len(links) > 40
    assert all(link.startswith(("https://", "#")) for pair in links for link in pair if link)


def test_the_wheel_alone_installs_and_trains(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(
        run(
            python, "-c", "import sysconfig as s; print(s.get_path('purelib'))", cwd=tmp_path
        ).strip()
    )
    # torch and the like come from this environment; the package under test does not,
    # for the links of editable installs are followed in a site folder of one's own only.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    )
    run(*pip, wheel, cwd=tmp_path)
    assert run(python, "-I", "-c", TRAIN, cwd=tmp_path).splitlines()[-1].startswith("trained 1.")
