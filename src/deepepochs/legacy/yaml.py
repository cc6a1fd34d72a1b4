"""Reads a configuration from YAML, with tags that join paths and texts and compute numbers."""

from __future__ import annotations

import functools
import math
import operator
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .mappings import ddict


def _joined(separator: str) -> Callable[[list[Any]], str]:
    return lambda parts: separator.join(map(str, parts))


_TAGS: dict[str, Callable[[list[Any]], Any]] = {
    "!path": _joined(os.sep),
    "!join": _joined(os.sep),
    "!str": _joined(""),
    "!cat": _joined(""),
    "!echo": operator.itemgetter(0),
    "!sum": sum,
    "!mul": math.prod,
}

# PyYAML follows YAML 1.1, where 1e-3 and 1.5e3 are texts; in YAML 1.2 they are numbers.
_EXPONENT_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


def load_yaml(yaml_path: str | os.PathLike[str], encoding: str = "utf8") -> ddict:
    r"""Read a YAML file into a `ddict`, whose keys can be read as attributes.

    The file cannot run code: only what ``yaml.SafeLoader`` allows is built.

    Args:
        yaml_path: the file. It is empty, or its top level is a mapping. These tags may stand
            before a list: ``!path`` or ``!join`` (the parts joined by the path separator),
            ``!str`` or ``!cat`` (the parts joined as one text), ``!echo`` (the first part),
            ``!sum`` and ``!mul``. ``1e-3`` is read as a number.
        encoding: the file's encoding.

    Raises:
        ConfigError: the file is not valid YAML, not a mapping, or misuses a tag.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "run.yaml")
        >>> _ = path.write_text("lr: 1e-3\nlayers: &n 2\nname: !str [run, *n]")
        >>> config = load_yaml(path)
        >>> config.lr, config.name
        (0.001, 'run2')
    """
    import yaml

    text = Path(yaml_path).read_text(encoding=encoding)
    try:
        content = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ConfigError(f"{yaml_path} cannot be read as YAML: {error}") from error
    if content is None:
        return ddict()
    if not isinstance(content, dict):
        raise ConfigError(
            f"{yaml_path} holds a {type(content).__name__} at its top level: write a mapping, "
            "lines of 'key: value'"
        )
    return ddict(content)


@functools.cache
def _loader() -> Any:
    """Make the loader's class, once. YAML is imported only when a file is read."""
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader with the tags of this module."""

    def construct_tag(loader: Any, tag_suffix: str, node: Any) -> Any:
        tag = f"!{tag_suffix}"
        fault = f"is unknown, or not before a list: use {', '.join(_TAGS)}, as in !sum [1, 2]"
        if tag in _TAGS and isinstance(node, yaml.SequenceNode):
            parts = loader.construct_sequence(node, deep=True)
            try:
                return _TAGS[tag](parts)
            except (TypeError, IndexError) as error:
                fault = f"cannot take {parts} ({error})"
        raise yaml.constructor.ConstructorError(
            None, None, f"the tag {tag} {fault}", node.start_mark
        )

    def construct_map(loader: Any, node: Any) -> Any:
        config = ddict()
        yield config  # before it is filled, so that YAML's aliases to it work
        config.update(loader.construct_mapping(node))

    Loader.add_multi_constructor("!", construct_tag)
    Loader.add_constructor("tag:yaml.org,2002:map", construct_map)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FLOAT, list("-+.0123456789"))
    return Loader
