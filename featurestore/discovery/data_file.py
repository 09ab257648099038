"""``data.yaml``: what was found, as ``featurestore`` and the scripts of train/ read it alike."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from shlex import quote
from textwrap import wrap
from typing import Any

from featurestore.errors import ConfigError
from featurestore.io.uris import local_path
from featurestore.printing import printable
from featurestore.spec.places import absolute, is_path
from featurestore.spec.rules import Artifacts, field_names
from featurestore.spec.store_spec import DATA, StoreSpec
from featurestore.spec.trees import leaves
from featurestore.spec.yaml_text import dumped

HEAD = """\
# Own data, written by `featurestore init` and yours to change.
#
#     featurestore check data={file}
#     accelerate launch train/probe.py data={file} fold={fold}
#
# Relative paths start at data.root, which starts at the folder of this file.
"""
WIDTH = 96  # of a line of comment


def text(spec: StoreSpec, name: str, file: Path, folds: tuple[int, str]) -> str:
    """Return the YAML of a spec: what differs from the defaults.

    Parameters
    ----------
    name
        Of the cohort, which MLflow shows.
    file
        Where it is to be written.
    folds
        One that there is, for the example; and why they are as they are, a comment.

    Raises
    ------
    ConfigError
        A name holds ``${``, which train/ would take for that of a key.
    """
    data: dict[str, Any] = {"name": name, "root": "."}
    rules: dict[str, Any] = {}
    default = StoreSpec()
    for entry in fields(StoreSpec):
        value = getattr(spec, entry.name)
        if value != getattr(default, entry.name):
            plain = dict(value) if isinstance(value, Mapping) else value
            (data if entry.name in DATA else rules)[entry.name] = plain
    for artifact in field_names(Artifacts):
        if artifact in data:
            data[artifact] = written_path(data[artifact], file)
    tree = {"data": data, **rules}
    _check(tree)
    fold, why = folds
    comment = "".join(f"# {line}\n" for line in wrap(f"{why[:1].upper()}{why[1:]}.", WIDTH) if why)
    return HEAD.format(file=printable(quote(str(file))), fold=fold) + comment + dumped(tree)


def written_path(uri: str, file: Path) -> str:
    """Return how a file of YAML names a URI: a path below its folder from there, others whole."""
    if not is_path(uri) and not uri.startswith("file:"):
        return uri
    path, folder = absolute(Path(local_path(uri))), absolute(file.parent)
    below = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
    return below if is_path(below) else str(path)


def _check(tree: dict[str, Any]) -> None:
    for path, value in leaves(tree):
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and ("${" in word or word == "???"):
                raise ConfigError(
                    f"{'.'.join(path)} would not be read as it is",
                    found=f"{word!r}, of which files of YAML make something else",
                    fix="rename what is called so",
                )
