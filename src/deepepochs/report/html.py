"""The frame of a page, and the pieces that pages are made of.

Every text that comes from a run passes through `escape`.

>>> from deepepochs.report.html import table
>>> table(["name", "value"], [["<b>", 0.5]]).count("&lt;b&gt;")
1
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .scales import short

__all__ = ["Raw", "cell_text", "duration", "facts", "frame", "section", "table", "tiles"]

STYLE = """
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1c2430;--quiet:#5d6878;
--line:#dfe3ea;--train:#2f6fde;--val:#d9730d;--good:#1f7a4d;
--bad:#b3261e;--warn:#8a5a00;--c2:#7b4fc9;--c3:#16836f;--c4:#b0417f;--c5:#6b6f1d}
@media (prefers-color-scheme:dark){:root{--back:#12161c;--card:#1a2029;--text:#e4e8ef;
--quiet:#9aa6b6;--line:#303947;--train:#79a8ff;--val:#ffab57;
--good:#69cf9c;--bad:#ff8d85;--warn:#f0c265;--c2:#b794f6;--c3:#5fd0ba;--c4:#ec8cc2;--c5:#c5c96a}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);
font:.9375rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:1.6rem;margin:0 0 4px;overflow-wrap:anywhere;line-height:1.25}
h2{font-size:1.12rem;margin:0 0 12px}h3{font-size:.95rem;margin:0 0 6px;overflow-wrap:anywhere}
a{color:var(--train)}p{margin:0 0 10px}code{font:.92em ui-monospace,Consolas,monospace}
pre{margin:0;padding:12px 14px;background:var(--back);border:1px solid var(--line);
border-radius:8px;overflow-x:auto}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;
padding:18px 20px;margin-top:18px}
.quiet{color:var(--quiet)}
.state{display:inline-block;font-size:.8rem;font-weight:600;line-height:1.6;padding:0 10px;
border-radius:99px;border:1px solid;vertical-align:.2em;margin-left:10px;white-space:nowrap}
.finished{color:var(--good)}.running{color:var(--train)}.failed,.killed{color:var(--bad)}
.interrupted,.unknown{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:18px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 16px}
.tile b{display:block;font-size:1.3rem;line-height:1.35;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}.tile span{color:var(--quiet);font-size:.86rem}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:22px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}th{font-weight:600;color:var(--quiet);font-size:.86rem;white-space:nowrap}
tr:last-child td{border-bottom:0}td.n,th.n{text-align:right;white-space:nowrap}
td.n:last-child,th.n:last-child{padding-right:2px}
.facts td:first-child{color:var(--quiet);width:1%;white-space:nowrap;padding-right:24px}
.facts td{overflow-wrap:anywhere}
details{margin-top:14px}summary{cursor:pointer;color:var(--train);font-weight:600}
details[open] summary{margin-bottom:8px}
.key{display:flex;gap:18px;font-size:.88rem;color:var(--quiet);margin:-4px 0 12px;flex-wrap:wrap}
.key i{display:inline-block;width:18px;height:3px;border-radius:2px;vertical-align:.22em;
margin-right:6px;background:currentColor}.key .train i{background:var(--train)}
.key .val i{background:var(--val)}.key .c2 i{background:var(--c2)}
.key .c3 i{background:var(--c3)}.key .c4 i{background:var(--c4)}.key .c5 i{background:var(--c5)}
svg{display:block;width:100%;height:auto}svg text{fill:var(--quiet);font-size:12px}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .grid{stroke:var(--line);stroke-width:1}svg .line{fill:none;stroke-width:2;
stroke-linejoin:round;stroke-linecap:round}
svg .train{stroke:var(--train)}svg .val{stroke:var(--val)}
svg .c2{stroke:var(--c2)}svg .c3{stroke:var(--c3)}
svg .c4{stroke:var(--c4)}svg .c5{stroke:var(--c5)}
svg .dot{stroke:none}svg .dot.train{fill:var(--train)}
svg .dot.val{fill:var(--val)}svg .dot.c2{fill:var(--c2)}svg .dot.c3{fill:var(--c3)}
svg .dot.c4{fill:var(--c4)}svg .dot.c5{fill:var(--c5)}
svg.spark{width:120px;height:28px}svg.matrix{width:auto;max-width:100%;margin:0 auto}
svg.matrix text{fill:var(--text)}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:14px}
.samples figure{margin:0}.samples img{width:100%;image-rendering:pixelated;border-radius:8px;
border:1px solid var(--line);display:block;background:var(--back)}
.samples figcaption{font-size:.82rem;line-height:1.35;margin-top:4px;overflow-wrap:anywhere}
.part i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:8px;
vertical-align:-.08em}
.bar{display:flex;height:22px;border-radius:6px;overflow:hidden;margin:4px 0 10px}
.bar i{display:block;min-width:1px}
.note{border-left:4px solid var(--warn);padding-left:14px}.note.bad{border-color:var(--bad)}
th button{all:unset;cursor:pointer;color:inherit}th button:focus-visible{outline:2px solid}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.sortable td{white-space:nowrap}main:has(.sortable){max-width:1400px}
footer{color:var(--quiet);font-size:.85rem;margin-top:22px}
@media (max-width:600px){main{padding:18px 12px 32px}section{padding:14px}
h1{font-size:1.3rem}.tiles{grid-template-columns:1fr 1fr;gap:8px}.tile{padding:10px 12px}
.tile b{font-size:1.1rem}.facts td:first-child{padding-right:14px;white-space:normal;width:34%}
svg.plot text{font-size:14px}}
@media print{:root{color-scheme:light;--back:#fff;--card:#fff;--text:#000;--quiet:#444;
--line:#ccc;--train:#1d55b8;--val:#c06000;--good:#1f7a4d;
--bad:#b3261e;--warn:#8a5a00;font-size:11px}
main{max-width:none;padding:0}
section{padding:10px 0;border:0;border-top:1px solid #ccc;border-radius:0}
.grid2{grid-template-columns:1fr 1fr}svg.matrix{max-width:360px}
.samples{grid-template-columns:repeat(8,1fr)}
figure,.tile,tr,svg,.keep{break-inside:avoid}h2,h3{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.screen{display:none}}
"""


class Raw(str):
    """HTML that is to stay as it is."""

    __slots__ = ()


def frame(title: str, body: str, script: str = "") -> str:
    """Return a whole page.

    Its policy forbids the browser every request, and every script but the given one.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        policy += f"; script-src 'sha256-{digest}'"
    tail = f"<script>{script}</script>" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f"<footer>Made by DeepEpochs</footer>\n</main>\n{tail}</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a part of a page; nothing if it holds nothing."""
    content = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Return a table; columns that hold numbers, below the head, go to the right."""
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    numeric = [
        any(map(is_number, column)) and all(is_number(cell) or cell == "" for cell in column)
        for column in zip(*lines, strict=True)
    ]
    marks = [' class="n"' if is_right else "" for is_right in numeric]
    top = "".join(
        f"<th{mark}>{cell_text(cell)}</th>" for cell, mark in zip(head, marks, strict=False)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{m}>{cell_text(c)}</td>" for c, m in zip(line, marks, strict=True))
        + "</tr>"
        for line in lines
    )
    head_row = f"<thead><tr>{top}</tr></thead>\n" if top else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head_row}<tbody>{body}</tbody></table></div>'
    )


def facts(values: Mapping[str, Any]) -> str:
    """Return names and values in two columns."""
    return table([], ([name, text_of(value)] for name, value in values.items()), "facts")


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return a row of large values, each with what it is."""
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in values
    )
    return f'<div class="tiles">{cards}</div>'


def cell_text(value: Any) -> str:
    """Return what stands in a field of a table."""
    if isinstance(value, Raw):
        return value
    return escape(short(value, 5) if isinstance(value, float) else text_of(value))


def text_of(value: Any) -> str:
    """Return a plain value as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    return "none" if value is None else str(value)


def is_number(value: Any) -> bool:
    """Whether a field of a table holds a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def duration(seconds: float) -> str:
    """Return a time in the units that suit it.

    >>> duration(0.25), duration(75), duration(3700), duration(200000)
    ('0.25 s', '1 min 15 s', '1 h 1 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{short(seconds, 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
