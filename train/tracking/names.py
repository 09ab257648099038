"""Names as MLflow takes them."""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

from train.config.schema import ConfigError

SPELLED = 200  # of the 250 characters of a metric's name, for the class in it


@lru_cache(maxsize=10_000)  # those of an epoch are those of the one before
def encode_name(name: str) -> str:
    """Spell a class name with the characters that MLflow takes in a metric's name.

    Letters, digits, ``_`` and ``-`` stand for themselves, others become ``.XX`` per UTF-8 byte;
    `decode_name` turns it back.
    """
    return quote(name, safe="").replace("~", "%7E").replace(".", "%2E").replace("%", ".")


def decode_name(name: str) -> str:
    """Undo `encode_name`."""
    return unquote(name.replace(".", "%"))


def check_spelled(names: Iterable[str]) -> None:
    """Refuse class names that are too long for the metrics of their class, which come last.

    Raises
    ------
    ConfigError
        One is.
    """
    for name in names:
        if len(encode_name(name)) > SPELLED:
            raise ConfigError(
                "MLflow takes no metric of so long a class name",
                found=f"{name!r}, {len(encode_name(name))} characters as MLflow takes them",
                fix=f"shorten it to {SPELLED} of them (a letter beyond ASCII counts six or more), "
                "or set tracking.enabled=false",
            )
