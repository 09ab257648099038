"""``key=value`` arguments, each read as the type of its key: text is taken literally."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from featurestore.errors import ConfigError
from featurestore.spec.keys import MISSING, documented, unset
from featurestore.spec.places import file_question
from featurestore.spec.trees import Tree, leaves
from featurestore.spec.typed import Reader, composed, holds_text

Later = Callable[[Any, str, str], object]


def given(schema: type, argv: list[str], example: str, later: Later = Reader.later) -> Tree:
    """Return what arguments set of a dataclass, as a tree.

    Below a mapping, all that is left of the key is a name in it, dots and all: ``thresholds.a.b``
    is the threshold of the class ``a.b``. A name may hold a ``=`` too where no value can.

    Parameters
    ----------
    example
        Arguments to show to who gave none that are understood.
    later
        As a `Reader` has it.

    Raises
    ------
    ConfigError
        An argument is not of the form ``key=value``, is given twice, is of no key or type, or is
        ``???``, which stands for a value that is not set.
    """
    reader = Reader(keys=[name for name, *_ in documented(schema)], later=later)
    tree: Tree = {}
    seen: set[tuple[str, ...]] = set()
    for argument in argv:
        check_form(argument, argv, example)
        path, kind, text = _split(schema, argument, reader)
        if text == MISSING:
            raise unset([".".join(path)], argument)
        values: Any = reader.argument(kind, text, ".".join(path))
        for name in reversed(path):
            values = {name: values}
        for place, _ in leaves(values):
            if (spelling := tuple(map(composed, place))) in seen:
                raise twice(".".join(place), argv)
            seen.add(spelling)
        _plant(values, tree)
    return tree


def _plant(values: Tree, tree: Tree) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _plant(value, tree.setdefault(name, {}))
        else:
            tree[name] = value


def check_form(argument: str, argv: list[str], example: str) -> None:
    """Refuse an argument that is not of the form ``key=value``, or not of letters."""
    if "=" not in argument or argument.startswith("-"):
        raise ConfigError(
            f"The argument {argument!r} is not of the form key=value",
            found=" ".join(argv) + file_question(argument),
            fix=f"write for example {example}; --help lists the keys",
        )
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"The argument {argument!r} is not UTF-8",
            found="bytes that are no letters",
            fix="give files and folders names in UTF-8",
        ) from error


def twice(key: str, argv: list[str]) -> ConfigError:
    """Return the refusal of a key that two arguments set."""
    alike = [a for a in argv if composed(key).startswith(composed(a.partition("=")[0]))]
    return ConfigError(f"{key} is given twice", found=" ".join(alike), fix="leave one of them out")


def _split(schema: type, argument: str, reader: Reader) -> tuple[list[str], Any, str]:
    """Return the path of an argument's key, its type and its text."""
    key, _, text = argument.partition("=")
    path, kind, named = _place(schema, key, reader)
    if named and not holds_text(kind):
        key, _, text = argument.rpartition("=")
        path, kind, _ = _place(schema, key, reader)
    return path, kind, text


def _place(schema: type, key: str, reader: Reader) -> tuple[list[str], Any, bool]:
    """Return where a key is, name by name, its type, and whether the last name is of a mapping."""
    path: list[str] = []
    kind: Any = schema
    rest: str | None = key
    named = False
    while rest is not None:
        if is_dataclass(kind):
            name, dot, below = rest.partition(".")
            kind, rest = get_type_hints(kind).get(name), below if dot else None
        elif get_origin(present := _present(kind)) in (dict, Mapping):
            name, kind, rest, named = rest, get_args(present)[1], None, True
        else:
            kind = None
        if kind is None:
            raise reader.unknown(key)
        path.append(name)
    return path, kind, named


def _present(kind: Any) -> Any:
    """Return the type of what may be unset, without that."""
    members = [one for one in get_args(kind) if one is not NoneType]
    unset_too = get_origin(kind) in (Union, UnionType) and len(members) == 1
    return members[0] if unset_too else kind
