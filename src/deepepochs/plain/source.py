"""Code that is read as text: parts of it, the names in it, and the statements that run before a line.

>>> source = Source("self.loss(out, y)  # the mean")
>>> source.segment(source.tree.body[0])
'self.loss(out, y)'
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

LIBRARY = __name__.partition(".")[0]

Edit = tuple[int, int, str]
"""Start and end of a part of a source, in bytes, and what is to stand there."""


class Source:
    """Some code with its syntax tree.

    Raises:
        SyntaxError: it is not Python.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.lines = text.splitlines()
        self._bytes = text.encode()
        # Syntax trees count columns in bytes.
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line.encode()))

    def span(self, node: Any) -> tuple[int, int]:
        """Start and end of a node, in bytes."""
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def lines_of(self, statement: ast.stmt, after: int) -> tuple[int, int]:
        """Start and end of the lines of a statement, with the comments above it.

        ``after`` is the line of the statement before it.
        """
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        return self._starts[self._with_comments(first, after) - 1], self._starts[last]

    def _with_comments(self, line: int, after: int) -> int:
        """The first line of the comments right above a line, not above ``after``; else the line."""
        while line - 1 > after and self.lines[line - 2].strip().startswith("#"):
            line -= 1
        return line

    def segment(self, node: ast.AST, edits: Iterable[Edit] = ()) -> str:
        """The text of a node, with edits made."""
        return self.between(*self.span(node), edits)

    def between(self, start: int, end: int, edits: Iterable[Edit] = ()) -> str:
        """The text between two places, with edits made."""
        parts, at = [], start
        for first, last, text in sorted(edits):
            parts += [self._bytes[at:first].decode(), text]
            at = last
        return "".join([*parts, self._bytes[at:end].decode()])

    def whole(self, statement: ast.stmt, after: int = 0) -> str:
        """The lines of a statement, with its decorators, and the comments and the space above it.

        ``after`` is the line of the statement before it.
        """
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]
        )
        last = statement.end_lineno or first
        shares_line = self.lines[first - 1][: statement.col_offset].strip()
        rest = self.lines[last - 1].encode()[statement.end_col_offset :].decode().strip()
        if shares_line or rest.startswith(";"):
            return self.segment(statement)
        first = self._with_comments(first, after)
        space = "\n" if first > 1 and not self.lines[first - 2].strip() else ""
        return space + textwrap.dedent("\n".join(self.lines[first - 1 : last]))


def source_of(function: Callable[..., Any]) -> Source | None:
    """The source of a function or class; ``None`` where there is none."""
    try:
        return Source(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


def names_read(*nodes: ast.AST) -> set[str]:
    """The names that code reads."""
    return {
        found.id
        for node in nodes
        for found in ast.walk(node)
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Load)
    }


def names_read_at_once(statement: ast.stmt) -> set[str]:
    """The names that a statement needs when it runs: not those in the bodies of functions."""
    found: set[str] = set()
    own = set() if isinstance(statement, (ast.Assign, ast.AugAssign)) else bound_names(statement)
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            decorators = getattr(node, "decorator_list", [])
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            waiting += [*decorators, *defaults]
            continue
        if isinstance(node, (ast.comprehension, ast.NamedExpr)):
            own |= bound_names(node)
        if isinstance(node, ast.ClassDef):
            own |= set().union(*map(bound_names, node.body))
        if isinstance(node, ast.ExceptHandler) and node.name:
            own.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return found - own


def bound_names(node: ast.AST) -> set[str]:
    """The names that a statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    names = {
        found.id
        for found in ast.walk(node)
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)
    }
    imported = [alias for one in ast.walk(node) for alias in getattr(one, "names", [])]
    return names | {
        alias.asname or alias.name.partition(".")[0]
        for alias in imported
        if isinstance(alias, ast.alias)
    }


def arguments_of(call: ast.Call, order: Sequence[str]) -> dict[str, ast.expr]:
    """The arguments of a call by name."""
    found = dict(zip(order, call.args, strict=False))
    found.update((keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg)
    return found


def seed_lines(seed: str) -> list[str]:
    """What ``set_seed`` does, in lines that need ``random``, ``np`` and ``torch``."""
    number = seed if seed.isdecimal() else f"int({seed})"  # a float is cut
    return [
        *(f"{seeds}({number})" for seeds in ("random.seed", "np.random.seed", "torch.manual_seed")),
        "torch.backends.cudnn.deterministic = True",
        "torch.backends.cudnn.benchmark = False",
    ]


def is_none(node: ast.expr | None) -> bool:
    """Whether an argument is missing or ``None``."""
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def is_literal(value: Any) -> bool:
    """Whether the ``repr`` of a value can stand in code."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, RuntimeError):
        return False


def literal(value: Any) -> str:
    """The code of such a value, with double quotes as formatters want them."""
    text = repr(value)
    if isinstance(value, float):
        return text.replace("e+", "e")
    return text if '"' in text else text.replace("'", '"')


def leaves(statement: ast.stmt) -> bool:
    """Whether a statement may leave the loop or the function around it, as ``if done: return``."""
    waiting: list[tuple[ast.AST, bool]] = [(statement, False)]
    while waiting:
        node, in_loop = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)):
            return True
        if isinstance(node, (ast.Break, ast.Continue)) and not in_loop:
            return True
        in_loop = in_loop or isinstance(node, (ast.For, ast.While))
        waiting += [(one, in_loop) for one in ast.iter_child_nodes(node)]
    return False


def blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            yield block


class Around(NamedTuple):
    """The statements that ran before a call, and the call.

    Attributes:
        source: of the whole file.
        file: its name.
        statements: those that ran before, of the module and of the function or method around the
            call.
        call: the call itself, if it was found.
        given: the names that are set by what is around the call: a loop, or a function's call.
        num_outer: how many of the statements are outside of the function.
        loops: the loops around the call, and those around the call of the function.
        num_outer_loops: how many of the loops are outside of the function.
    """

    source: Source
    file: str
    statements: list[ast.stmt]
    call: ast.Call | None
    given: list[str]
    num_outer: int = 0
    loops: Sequence[ast.For] = ()
    num_outer_loops: int = 0


def around(
    frame: FrameType, methods: Sequence[str], written: Collection[str] = ()
) -> Around | None:
    """Find the statements that ran before the line of a frame; ``None`` without a source.

    Args:
        frame: of the script.
        methods: the names of the method that is called in this line.
        written: functions of the library whose code is written into the script.
    """
    found = _code_of(frame)
    if found is None:
        return None
    source, line, file = found
    source = _with_own_names(source, written)
    statements: list[ast.stmt] = []
    given: list[str] = []
    loops: list[ast.For] = []
    block, num_outer, num_outer_loops = source.tree.body, 0, 0
    if frame.f_code.co_name != "<module>":
        function = next((f for f in block if _holds(f, line)), None)
        if isinstance(function, ast.ClassDef):
            function = next((f for f in function.body if _holds(f, line)), None)
        if not isinstance(function, ast.FunctionDef):
            return None
        statements += _before_call(frame, block, given, loops)
        statements = [one for one in statements if one is not function]
        given += [one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)]
        block, num_outer, num_outer_loops = function.body, len(statements), len(loops)
    call = _walk_to(block, line, methods, statements, given, loops)
    return Around(source, file, statements, call, given, num_outer, loops, num_outer_loops)


def _before_call(
    frame: FrameType, block: list[ast.stmt], given: list[str], loops: list[ast.For]
) -> list[ast.stmt]:
    """The statements of a module that ran before it called the function of a frame."""
    caller: FrameType | None = frame
    while caller is not None and (
        caller.f_code.co_name != "<module>" or caller.f_code.co_filename != frame.f_code.co_filename
    ):
        caller = caller.f_back
    if caller is None:  # another module has called it
        return [one for one in block if not _is_main_block(one)]
    found: list[ast.stmt] = []
    _walk_to(block, caller.f_lineno, (), found, given, loops)
    return found


def _code_of(frame: FrameType) -> tuple[Source, int, str] | None:
    """The source around a frame, its line there, and the name of the file."""
    name = frame.f_code.co_filename
    linecache.checkcache(name)  # the script may have been edited since
    lines = linecache.getlines(name, frame.f_globals)
    if not lines:
        return None
    before: list[str] = []
    file = name.replace("\\", "/").rpartition("/")[2]
    if "get_ipython" in frame.f_globals:  # the cells that have run, this one excluded
        cells = frame.f_globals.get("In", [])[1:-1]
        before = [*"\n".join(map(_without_magics, cells)).splitlines(keepends=True), "\n"]
        lines, file = _without_magics("".join(lines)).splitlines(keepends=True), "a notebook"
    try:
        return Source("".join([*before, *lines])), frame.f_lineno + len(before), file
    except SyntaxError:
        return None


def _with_own_names(source: Source, written: Collection[str]) -> Source:
    r"""Import the functions that a script calls by the name of the module.

    >>> print(_with_own_names(Source("import deepepochs as de\nde.set_seed(3)"), ["set_seed"]).text)
    import deepepochs as de; from deepepochs import set_seed
    set_seed(3)
    """
    modules = {
        alias.asname or alias.name: node
        for node in source.tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == LIBRARY
    }
    found = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules and node.attr in written and node.lineno == node.end_lineno
    ]
    if not found:
        return source
    taken = set().union(*map(bound_names, source.tree.body)) | names_read(source.tree)
    names = {one.attr: f"{one.attr}_of_library" for one in found}
    names = {attr: name if attr in taken else attr for attr, name in names.items()}
    aliases = (attr if attr == name else f"{attr} as {name}" for attr, name in names.items())
    end = source.span(next(iter(modules.values())))[1]
    edits = [(*source.span(one), names[one.attr]) for one in found]
    edits.append((end, end, f"; from {LIBRARY} import {', '.join(aliases)}"))
    return Source(source.between(0, len(source.text.encode()), edits))


def _without_magics(cell: str) -> str:
    return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in cell.split("\n"))


def _holds(statement: ast.stmt, line: int) -> bool:
    return statement.lineno <= line <= (statement.end_lineno or line)


def _walk_to(
    block: list[ast.stmt],
    line: int,
    methods: Sequence[str],
    found: list[ast.stmt],
    given: list[str],
    loops: list[ast.For],
) -> ast.Call | None:
    """Add the statements before a line; of a block around it, those before it in there."""
    for statement in block:
        if not _holds(statement, line):
            if statement.lineno > line:
                return None
            found.append(statement)
            continue
        for inner in blocks_of(statement):
            if inner[0].lineno <= line <= (inner[-1].end_lineno or line):
                if isinstance(statement, (ast.For, ast.With)):
                    header = (n for n in ast.iter_child_nodes(statement) if n not in inner)
                    given += sorted(set().union(*map(bound_names, header)))
                if isinstance(statement, ast.For):
                    loops.append(statement)
                return _walk_to(inner, line, methods, found, given, loops)
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        known = (c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in methods)
        return next(known, None)
    return None


def _is_main_block(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in names_read(statement.test)
