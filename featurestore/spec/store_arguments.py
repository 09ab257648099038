"""``key=value`` arguments about data: the keys of a `StoreSpec`, as every command names them."""

from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from typing import Any, get_type_hints

from featurestore.errors import ConfigError
from featurestore.spec.arguments import given
from featurestore.spec.keys import documented
from featurestore.spec.store_spec import DATA, TRAINING, StoreSpec, check_bounds

EXAMPLE = "data=data.yaml thresholds.Fat=0.5"
_TYPES = get_type_hints(StoreSpec)
_FIELDS = {
    entry.name: (entry.name, _TYPES[entry.name], field(default=None, metadata=entry.metadata))
    for entry in fields(StoreSpec)
}
_DATA = make_dataclass("Data", [_FIELDS[name] for name in DATA])
KEYS = make_dataclass(
    "Keys",
    [
        ("data", _DATA, field(default_factory=_DATA)),
        *(entry for name, entry in _FIELDS.items() if name not in DATA),
    ],
)
"""A dataclass of what an argument can set, with a section ``data``, as train/config has it."""


def lines() -> list[str]:
    """Return a line of help for every key."""
    return [f"  {name:<22}{line}" for name, _, line in documented(KEYS)]


def values_given(argv: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a spec that arguments set.

    Raises
    ------
    ConfigError
        An argument is of no key, with the nearest, of a key of training alone, or of another type;
        or as `featurestore.spec.arguments.given`.
    """
    for argument in argv:
        _refuse_training(argument)
    tree = given(KEYS, list(argv), EXAMPLE)
    values = {**tree.pop("data", {}), **tree}
    check_bounds(values)
    return values


def _refuse_training(argument: str) -> None:
    key = argument.partition("=")[0]
    sections = (key, key.partition(".")[0], ".".join(key.split(".")[:2]))
    if any(section in TRAINING for section in sections):
        raise ConfigError(
            f"{key} says how heads are trained or where runs are kept, and nothing of the data",
            found=argument,
            fix="leave it out; train/probe.py takes it",
        )
