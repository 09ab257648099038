"""``key=value`` arguments of ``featurestore``: recognised, and read before any work."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from featurestore.spec import store_arguments
from featurestore.spec.arguments import check_form, twice
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.typed import Reader

SETTING = re.compile(r"[A-Za-z_]\w*(\.[^=]+)?=.*", re.DOTALL)
FILES = ("data", "classes", "experiment")
"""Keys that name a file of keys, in the order in which these are merged."""
OPTIONS: dict[str, tuple[str, Any]] = {
    "store": ("store", str),
    "threads": ("threads", int),
    "memory_limit": ("memory_limit", str),
    "tracking.uri": ("tracking_uri", str),
    "runs": ("runs", str | list[str]),
}
"""Keys of the scripts that are options here, with their types."""


def is_setting(word: str) -> bool:
    """Return whether a word of the command line is of the form ``key=value``."""
    return SETTING.fullmatch(word) is not None


def read_settings(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Read the arguments ``key=value`` into the options, before any work.

    Parameters
    ----------
    options
        Gets ``files``, to be overlaid in this order, and ``values``, which override them; keys that
        are options as well are set as such.

    Raises
    ------
    ConfigError
        One is not understood, with the nearest key that is, or is given twice.
    """
    files: dict[str, str] = {}
    rest = []
    for word in words:
        check_form(word, list(words), store_arguments.EXAMPLE)
        key, _, text = word.partition("=")
        if key in FILES:
            if key in files or (key == "data" and options.config is not None):
                raise twice(key, [f"--config {options.config}", *words])
            files[key] = Reader().argument(str, text, key)
        elif key in OPTIONS:
            name, kind = OPTIONS[key]
            setattr(options, name, Reader().argument(kind, text, key))
        else:
            rest.append(word)
    options.values = store_arguments.values_given(rest)
    StoreSpec().overlaid(options.values)
    options.files = files
