"""Words of YAML as text, numbers, truths and choices, by the type that their key has.

YAML's own tags are of no use for it (see `featurestore.spec.typed`), but tell text that was quoted,
and in what Python holds already, text from other values.
"""

import re
from typing import Any, Literal, get_args, get_origin

from yaml import Node, ScalarNode

NULL, TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"
SCALARS = {f"tag:yaml.org,2002:{name}" for name in
           ("str", "null", "bool", "int", "float", "timestamp", "value", "merge")}  # fmt: skip
TRUTH = dict.fromkeys(("true", "yes", "on", "1"), True)
TRUTH |= dict.fromkeys(("false", "no", "off", "0"), False)
WHOLE = r"[+-]?(0|[1-9][0-9]*(_[0-9]+)*)"
FRACTION = rf"({WHOLE}\.?|{WHOLE}?\.[0-9]+(_[0-9]+)*|[+-]\.[0-9]+)([eE][+-]?[0-9]+)?"
DIGITS = 300  # a longer number is none


def scalar(kind: Any, node: ScalarNode) -> str | int | float | bool | None:
    """Return the value of a word; None if it is none of the type."""
    word = node.value
    if kind is str:
        return word if is_plain(node) and node.tag != NULL else None
    if get_origin(kind) is Literal:
        return word if word in get_args(kind) else None
    if is_quoted(node) or len(word) > DIGITS:
        return None
    if kind is bool:
        return TRUTH.get(word.lower())
    if kind is int and re.fullmatch(WHOLE, word, re.ASCII):
        return int(word)
    if kind is float and re.fullmatch(FRACTION, word, re.ASCII):
        number = float(word)
        return number if abs(number) != float("inf") else None
    return None


def is_plain(node: ScalarNode) -> bool:
    """Return whether a word was written, or is text in Python: not a number, nor a truth."""
    return node.start_mark is not None or node.tag == TEXT


def is_quoted(node: Node) -> bool:
    """Return whether somebody has said that a word is text."""
    if not isinstance(node, ScalarNode):
        return False
    return bool(node.style) if node.start_mark else node.tag == TEXT
