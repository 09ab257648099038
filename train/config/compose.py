"""Layers of a configuration made one by OmegaConf: merged, the keys that they name filled in."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from featurestore.errors import ConfigError
from featurestore.spec.keys import MISSING, unset
from featurestore.spec.trees import Tree, leaves
from featurestore.spec.typed import Reader, holds_text, nearest

REFERENCE = r"(\\*)\$\{(?:([^${}]*)\})?"  # an odd number of backslashes makes it mere characters
NAME = r"[\w.-]+"


@dataclass
class Templates:
    """Text that names other keys: ``runs:/${data.runs.tiles}/tiles.parquet``.

    Parameters
    ----------
    kinds
        The types of the keys that hold some: they are read when they are filled in.
    """

    kinds: dict[str, Any] = field(default_factory=dict)

    def later(self, kind: Any, word: str, key: str) -> str | None:
        """Return a word as OmegaConf takes it, if it cannot be read now.

        See `featurestore.spec.typed.Reader`.

        Raises
        ------
        ConfigError
            It asks for more than the value of a key: nothing is looked up elsewhere, above all not
            in the environment, since a configuration is recorded.
        """
        if any(not re.fullmatch(NAME, name) for name in _names(word)):
            raise ConfigError(
                f"{key} asks for more than the value of a key",
                found=f"{key}: {word}",
                fix=r"name a key, as in ${data.name}; \${ stands for the characters",
            )
        if "${" in word:
            self.kinds[key] = kind
        elif holds_text(kind) and re.fullmatch(r"\\+\?{3}", word):
            return "\\" + word  # of which OmegaConf takes one away
        return word if "${" in word or word == MISSING else None

    def composed(self, layers: Sequence[Tree], replaced: Collection[tuple[str, ...]] = ()) -> Tree:
        """Return layers as one tree, of which the later wins; what is missing still is ``???``.

        Parameters
        ----------
        replaced
            Keys whose mappings are not joined with those of an earlier layer.

        Raises
        ------
        ConfigError
            A template names no key, one without text, or one that is not set; or what it becomes is
            not of its key's type.
        """
        try:
            config = _merged(layers, replaced)
            written: Any = OmegaConf.to_container(config)
            _check(written)
            return self._read(written, OmegaConf.to_container(config, resolve=True), "")
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{error.full_key} cannot be made of the keys that it names",
                found=str(error).partition("\n")[0],
                fix=f"set {error.full_key} to another value",
            ) from error

    def _read(self, written: Any, value: Any, key: str) -> Any:
        """Return a resolved value, of its key's type where a template was written."""
        if isinstance(written, dict):
            return {
                name: self._read(below, value[name], f"{key}.{name}" if key else name)
                for name, below in written.items()
            }
        if isinstance(written, list):
            return [self._read(one, value[n], f"{key}[{n}]") for n, one in enumerate(written)]
        if not isinstance(written, str) or "${" not in written:
            return value
        kind = self.kinds[key]
        return str(value) if holds_text(kind) else Reader().argument(kind, str(value), key)


def _merged(layers: Sequence[Tree], replaced: Collection[tuple[str, ...]]) -> DictConfig:
    config = OmegaConf.create()
    for layer in layers:
        for path in _replaced(OmegaConf.to_container(config, resolve=False), layer, replaced):
            del reduce(getitem, path[:-1], config)[path[-1]]
        merged = OmegaConf.unsafe_merge(config, layer)  # which copies nothing first
        assert isinstance(merged, DictConfig)
        config = merged
        for path, value in leaves(layer):
            if value == MISSING:  # OmegaConf keeps what was set before; here it must be set again
                reduce(getitem, path[:-1], config)[path[-1]] = MISSING
    return config


def _replaced(
    config: Any, layer: Tree, replaced: Collection[tuple[str, ...]], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the paths of mappings and lists that a layer replaces, where OmegaConf would join them.

    URIs of splits are a list, those of encoders a mapping: one becomes the other, and other
    encoders are not added to those that were there.
    """
    for name, value in layer.items():
        below, place = config.get(name), (*path, name)
        if {type(below), type(value)} == {dict, list}:
            yield place
        elif isinstance(below, dict) and isinstance(value, dict):
            if place in replaced:
                yield place
            else:
                yield from _replaced(below, value, replaced, place)


def _names(word: str) -> Iterator[str]:
    """Yield what stands between ``${`` and ``}``: nothing, if more is nested in it."""
    for backslashes, name in re.findall(REFERENCE, word):
        if len(backslashes) % 2 == 0:
            yield name


def _check(tree: Tree) -> None:
    """Refuse templates that name what is no key, or a key that has no text."""
    values = {".".join(path): value for path, value in leaves(tree)}
    missing: dict[str, str] = {}
    for key, value in values.items():
        for word in value if isinstance(value, list) else [value]:
            for name in _names(word) if isinstance(word, str) else ():
                _check_name(name, values, key, f"{key}: {word}")
                if values[name] == MISSING:
                    missing.setdefault(name, f"{key}: {word}")
    if missing:
        raise unset(list(missing), "; ".join(missing.values()))


def _check_name(name: str, values: Tree, key: str, written: str) -> None:
    if name not in values:
        raise ConfigError(
            f"{key} names {name!r}, which is no key",
            found=written + nearest(name, values),
            fix="correct the name",
        )
    if values[name] is None or isinstance(values[name], list):
        raise ConfigError(
            f"{name} has no text that could be put in its place",
            found=f"{written}, and {name} is {'null' if values[name] is None else 'a list'}",
            fix=f"set {key} to another value",
        )
