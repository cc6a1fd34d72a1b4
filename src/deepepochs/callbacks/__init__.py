"""The built-in callbacks, one file each; a file is loaded when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..on_demand import submodule

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)
