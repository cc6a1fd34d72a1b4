"""Numbers, times, sizes and places as a person reads them, on pages and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
STAGES = {"train": "training", "val": "validation", "test": "test"}


def text_of(value: Any) -> str:
    """Return a plain value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    return "none" if value is None else str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def short(value: float, digits: int = 4) -> str:
    """Return a number with at most ``digits`` significant digits.

    >>> short(0.30000000000000004), short(12345678.0), short(0.00001), short(float("nan"))
    ('0.3', '1.235e7', '1e-5', 'nan')
    """
    text = f"{value:.{digits}g}"
    if "e" in text:
        number, power = text.split("e")
        return f"{number}e{int(power)}"
    return "0" if text == "-0" else text


def measured(value: float) -> str:
    """Return the value of a metric with four decimals, or with fewer digits where they do not fit.

    >>> measured(0.9), measured(123.456), measured(-0.00001), measured(0.0), measured(2e9)
    ('0.9000', '123.4560', '-1e-5', '0.0000', '2e9')
    """
    fits = value == 0 or 1e-3 <= abs(value) < 1e4
    return f"{value:.4f}" if fits else short(value)


def duration(seconds: float) -> str:
    """Return a time in suitable units.

    >>> duration(0.256), duration(5.89), duration(75), duration(3700), duration(200000)
    ('0.26 s', '5.9 s', '1 min 15 s', '1 h 1 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{short(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(num_bytes: float) -> str:
    """Return a size of a file or of weights.

    >>> size(812), size(101_800), size(2_440_000), size(13_000_000_000)
    ('812 bytes', '102 kB', '2.44 MB', '13 GB')
    """
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    power = next(p for p in (1, 2, 3, 4) if num_bytes < 999.5 * 1000**p or p == 4)
    return f"{short(num_bytes / 1000**power, 3)} {'kMGT'[power - 1]}B"


def day_and_time(moment: datetime) -> str:
    """Return a time to the minute.

    >>> day_and_time(datetime(2026, 11, 5, 21, 36))
    '5 November 2026, 21:36'
    """
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M}"


def period(start: datetime, end: datetime) -> str:
    """Return a period as text.

    >>> period(datetime(2026, 11, 5, 21, 36), datetime(2026, 11, 5, 22, 1))
    '5 November 2026, 21:36 to 22:01'
    >>> period(datetime(2026, 11, 5, 21, 36), datetime(2026, 11, 6, 3, 1))
    '5 November 2026, 21:36 to 6 November 2026, 03:01'
    """
    first, last = day_and_time(start), day_and_time(end)
    if first == last:
        return first
    return f"{first} to {last if end.date() != start.date() else f'{end:%H:%M}'}"


def place(path: Path) -> str:
    """Return a path as it would be typed: from the working folder, or from the home folder.

    >>> place(Path.cwd() / "logs" / "mine"), place(Path.home() / "logs")
    ('logs/mine', '~/logs')
    """
    full = path.absolute()
    for start, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if full != start and full.is_relative_to(start):
            return prefix + full.relative_to(start).as_posix()
    return full.as_posix()
