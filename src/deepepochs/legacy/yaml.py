r"""Reads a configuration from YAML, with tags that join paths and texts and compute numbers.

Only what ``yaml.SafeLoader`` allows is built: a file can never run code.

>>> import pathlib, tempfile
>>> from deepepochs.legacy.yaml import load_yaml
>>> with tempfile.TemporaryDirectory() as folder:
...     path = pathlib.Path(folder, "run.yaml")
...     _ = path.write_text("lr: 1e-3\nlayers: &n 2\nsize: !mul [*n, 8]\nname: !str [run, *n]")
...     config = load_yaml(path)
>>> config.lr, config.size, config.name
(0.001, 16, 'run2')
"""

from __future__ import annotations

import functools
import math
import os
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .mappings import ddict

__all__ = ["load_yaml"]

_SEPARATOR = os.sep
_TAGS = {
    "!path": lambda parts: _SEPARATOR.join(map(str, parts)),
    "!join": lambda parts: _SEPARATOR.join(map(str, parts)),
    "!str": lambda parts: "".join(map(str, parts)),
    "!cat": lambda parts: "".join(map(str, parts)),
    "!echo": lambda parts: parts[0],
    "!sum": sum,
    "!mul": math.prod,
}

# PyYAML follows YAML 1.1, where 1e-3 and 1.5e3 are texts; in YAML 1.2 they are numbers.
_EXPONENT_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


def load_yaml(yaml_path: str | os.PathLike[str], encoding: str = "utf8") -> ddict:
    """Read a YAML file into a `ddict`, whose keys can be read as attributes.

    Args:
        yaml_path: the file. Its top level is a mapping, or it is empty. Beside plain YAML
            it may use, each before a list: ``!path`` or ``!join`` (the parts joined by the
            path separator), ``!str`` or ``!cat`` (joined as one text), ``!echo`` (the first
            element), ``!sum`` and ``!mul``. Numbers such as ``1e-3`` are read as numbers.
        encoding: of the file.

    Raises:
        ConfigError: the file is not valid YAML, not a mapping, or misuses a tag.
        FileNotFoundError: there is no such file.

    Example:
        See the module's docstring.
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
    """Make the loader's class, once: YAML is imported only when a file is read."""
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader with the tags of this module."""

    def construct_tag(loader: Any, tag_suffix: str, node: Any) -> Any:
        tag = f"!{tag_suffix}"
        if tag not in _TAGS or not isinstance(node, yaml.SequenceNode):
            known = ", ".join(_TAGS)
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"the tag {tag} is unknown, or not before a list: use {known}, as in !sum [1, 2]",
                node.start_mark,
            )
        parts = loader.construct_sequence(node, deep=True)
        try:
            return _TAGS[tag](parts)
        except (TypeError, IndexError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {tag} cannot take {parts} ({error})", node.start_mark
            ) from error

    def construct_map(loader: Any, node: Any) -> Any:
        config = ddict()
        yield config  # before it is filled, so that YAML's aliases to it work
        config.update(loader.construct_mapping(node))

    Loader.add_multi_constructor("!", construct_tag)
    Loader.add_constructor("tag:yaml.org,2002:map", construct_map)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FLOAT, list("-+.0123456789"))
    return Loader
