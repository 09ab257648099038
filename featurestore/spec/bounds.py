"""Between what a number must lie, in the notation of intervals."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from featurestore.errors import ConfigError

SEEDS = f"[0, {2**32 - 1}]"  # what NumPy and scikit-learn take
COUNTS = f"[1, {2**31 - 1}]"
FOLDS = f"[2, {2**31 - 1}]"
THREADS = "[1, 65536]"


def within(text: str) -> dict[str, str]:
    """Attach an interval to a dataclass's key, as its metadata."""
    return {"within": text}


def of(schema: Any, prefix: str = "") -> dict[str, str]:
    """Return the interval of each key of a dataclass that has one, those of its sections too."""
    rows: dict[str, str] = {}
    kinds = get_type_hints(schema)
    for entry in fields(schema):
        if is_dataclass(kinds[entry.name]):
            rows |= of(kinds[entry.name], f"{prefix}{entry.name}.")
        elif "within" in entry.metadata:
            rows[prefix + entry.name] = entry.metadata["within"]
    return rows


@dataclass(frozen=True)
class Interval:
    """The numbers from one end to another.

    Parameters
    ----------
    text
        The interval as people write it, for example ``[0, 1)``: a parenthesis leaves its end out.
    """

    text: str

    def __contains__(self, number: float) -> bool:
        match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", self.text)
        assert match, self.text
        opens, low, high, closes = match.groups()
        above = number >= _exact(low) if opens == "[" else number > _exact(low)
        below = number <= _exact(high) if closes == "]" else number < _exact(high)
        return above and below


def _exact(end: str) -> float:
    """Return an end of an interval: an integer stays one, since a float would round it."""
    return int(end) if re.fullmatch(r"-?\d+", end) else float(end)


def check(numbers: Iterable[tuple[str, object]], text: str) -> None:
    """Refuse the first number that lies outside an interval; NaN lies outside all of them.

    Parameters
    ----------
    numbers
        Each with its key. Of a list every number is looked at, and what is no number is not.
    text
        The interval.

    Raises
    ------
    ConfigError
        With key, number and interval.
    """
    interval = Interval(text)
    for key, value in numbers:
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if math.isnan(number) or number not in interval:
                raise ConfigError(
                    f"{key} is out of bounds", found=f"{key}={number}", fix=f"set it within {text}"
                )
