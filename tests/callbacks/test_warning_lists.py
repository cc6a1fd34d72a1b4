"""Warnings of a fit are in its record, and `warnings.showwarning` is put back from any thread."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

from event_reader import loaders, small_trainer

from deepepochs import Callback, CheckCallback
from deepepochs.callbacks.warning_lists import WarningLists
from deepepochs.runs.record import read_run


class Warns(Callback):
    """Warns in the middle of its fit, when the other fits are in their middle, too."""

    def __init__(self, barrier: threading.Barrier, text: str) -> None:
        super().__init__()
        self.barrier = barrier
        self.text = text

    def on_after_epoch(self, epoch_idx: int, **others: Any) -> None:
        if epoch_idx == 0:
            self.barrier.wait(60)
            warnings.warn(self.text, UserWarning, stacklevel=1)


def test_fits_in_threads_have_their_own_warnings_and_put_the_hook_back(tmp_path: Path) -> None:
    names, barrier = ["a", "b", "c"], threading.Barrier(3)
    trainers = {
        name: small_trainer(
            callbacks=[CheckCallback("loss", ckpt_dir=tmp_path), Warns(barrier, name)],
            running_id=name, epochs=2 + index,
        )
        for index, name in enumerate(names)
    }  # fmt: skip
    # A hook of its own, which no other test and no runner has put there.
    shown: list[str] = []

    def show(message: Any, *_: Any, **others: Any) -> None:
        shown.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        threads = [
            threading.Thread(target=trainer.fit, args=loaders()) for trainer in trainers.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.showwarning is show
    assert sorted(shown) == names
    for name in names:
        assert read_run(tmp_path / name).record["warnings"] == [f"UserWarning: {name}"]


def test_a_warning_of_a_thread_without_a_fit_is_in_all_lists() -> None:
    lists, first, second = WarningLists(), [], []  # type: ignore[var-annotated]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: None
        lists.add(first)
        added, done = threading.Event(), threading.Event()

        def begin() -> None:
            lists.add(second)
            added.set()
            done.wait(60)  # the number of a thread that has ended may be given to another

        starter = threading.Thread(target=begin)
        starter.start()
        added.wait(60)
        other = threading.Thread(target=warnings.warn, args=("theirs",))
        other.start()
        other.join()
        warnings.warn("mine", stacklevel=1)
        done.set()
        starter.join()
        lists.remove(first)
        lists.remove(second)
    assert second == ["UserWarning: theirs"]
    assert first == ["UserWarning: theirs", "UserWarning: mine"]


def test_a_hook_that_was_wrapped_meanwhile_stays_and_does_not_call_itself() -> None:
    lists, texts, shown = WarningLists(), [], []  # type: ignore[var-annotated]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        lists.add(texts)
        inner = warnings.showwarning

        def wrapping(*place: Any, **others: Any) -> None:
            inner(*place, **others)

        warnings.showwarning = wrapping
        lists.remove(texts)
        assert warnings.showwarning is wrapping
        lists.add(texts)
        warnings.warn("once", stacklevel=1)
        lists.remove(texts)
        assert warnings.showwarning is wrapping
    assert shown == ["once"] and texts == ["UserWarning: once"]
