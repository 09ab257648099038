"""Values of declared types out of YAML: what is text stays the text that was written.

YAML gives a word a type by its looks: ``on`` is true, ``010`` is 8, ``12:30`` is 750. Here the key
gives it: a file's name, a run's id or a class may look like anything.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode
from yaml.representer import SafeRepresenter

from featurestore.errors import ConfigError
from featurestore.spec.scalars import FRACTION, NULL, SCALARS, TEXT, is_plain, is_quoted, scalar

EXAMPLES = {int: "4", float: "0.1", bool: "true", list[int]: "[0,1,4]", list[float]: "[0.1,0.2]"}


@dataclass(frozen=True)
class Reader:
    """Reads values of declared types.

    A type is ``str``, ``int``, ``float``, ``bool``, a ``Literal`` of words, a dataclass, a list, a
    mapping from text, or a union of them.

    Parameters
    ----------
    source
        What is read, for errors: the name of a file, or nothing for arguments.
    keys
        All keys that there are, among which the nearest to an unknown one is.
    later
        Of a type, a word and its key: what stands for it until it can be read, or None if it can.
    """

    source: str = ""
    keys: Sequence[str] = ()
    later: Callable[[Any, str, str], object] = field(default=lambda *_: None)

    def root(self, content: bytes | str) -> MappingNode:
        """Return the mapping that a YAML document is; an empty document is an empty one."""
        try:
            node = yaml.compose(content, yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(
                f"{self.source} cannot be read as YAML",
                found=" ".join(str(error).split())[:200] or type(error).__name__,
                fix="correct the file or its name",
            ) from error
        if node is None:
            return EMPTY
        if not isinstance(node, MappingNode):
            raise ConfigError(
                f"{self.source} is not a mapping",
                found=f"{_kind_of(node)}",
                fix="write key: value; see configs/",
            )
        return node

    def entries(self, node: Node, key: str = "") -> dict[str, Node]:
        """Return what a mapping holds by its keys, which are text however they look."""
        if not isinstance(node, MappingNode):
            raise ConfigError(
                f"{key} is a section of keys",
                found=self.excerpt(node, key),
                fix=f"set the keys below it: {key}.KEY",
            )
        contents: dict[str, Node] = {}
        spellings: dict[str, Node] = {}
        for name, content in node.value:
            if not isinstance(name, ScalarNode) or not is_plain(name):
                raise ConfigError(
                    f"A key of {key or self.source} is not text",
                    found=self.excerpt(name, "key"),
                    fix="write key: value",
                )
            if (form := composed(name.value)) in spellings:
                raise ConfigError(
                    f"{_below(key, name.value)} is set twice",
                    found=f"{self.excerpt(spellings[form], name.value)}, and "
                    f"{self.excerpt(content, name.value)}",
                    fix="leave one of them out",
                )
            contents[name.value] = spellings[form] = content
        return contents

    def section(self, schema: type, node: Node, key: str = "") -> dict[str, Any]:
        """Return the values of a dataclass's keys that a mapping sets."""
        kinds, values = get_type_hints(schema), {}
        for name, content in self.entries(node, key).items():
            if name not in kinds:
                raise self.unknown(_below(key, name))
            values[name] = self.value(kinds[name], content, _below(key, name))
        return values

    def value(self, kind: Any, node: Node, key: str) -> Any:
        """Return the value that a node is, of the declared type.

        Raises
        ------
        ConfigError
            It is none, with the key, what was found and what the type is.
        """
        if is_dataclass(kind) and isinstance(kind, type):
            return self.section(kind, node, key)
        if isinstance(node, ScalarNode):
            if node.tag not in SCALARS:
                raise self.refused(kind, node, key)
            if (word := self.later(kind, node.value, key)) is not None:
                return word
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return self._one_of(kind, node, key)
        if origin is list and isinstance(node, SequenceNode):
            return [self.value(inner[0], item, f"{key}[{n}]") for n, item in enumerate(node.value)]
        if origin in (dict, Mapping) and isinstance(node, MappingNode):
            return {
                name: self.value(inner[1], content, _below(key, name))
                for name, content in self.entries(node, key).items()
            }
        if isinstance(node, ScalarNode):
            value = scalar(kind, node)
            if value is not None:
                return value
        raise self.refused(kind, node, key)

    def argument(self, kind: Any, text: str, key: str) -> Any:
        """Return the value that an argument gives: text is taken literally.

        A template is refused: it is a shell's variable that was not expanded, or names a key.
        ``null`` unsets what may be unset. Lists and mappings are those of YAML, in ``[]`` and
        ``{}``.
        """
        if not text:
            fix = f"{key}=null to unset it" if NoneType in get_args(kind) else f"{key}=VALUE"
            raise ConfigError(f"{key} has no value", found=f"{key}=", fix=f"write {fix}")
        template = ConfigError(
            f"{key} is given as a template, which only files of configs/ may hold",
            found=f"{key}={text}",
            fix=r"write what it stands for; in such a file, \${ stands for the characters",
        )
        if "${" in text:
            raise template
        if text[0] in "[{" and (not holds_text(kind) or _is_flow(kind, text)):
            value = self.value(kind, self._flow(kind, text, key), key)
            if "${" in str(value):  # YAML's escapes hid it
                raise template
            return value
        unset = text == "null" and NoneType in get_args(kind)
        return self.value(kind, ScalarNode(NULL if unset else TEXT, text, _MARK, _MARK), key)

    def unknown(self, key: str) -> ConfigError:
        """Return the refusal of a key that there is not, with the nearest one."""
        return ConfigError(
            f"There is no configuration key {key!r}",
            found=f"{len(self.keys)} keys{nearest(key, self.keys)}",
            fix="correct its name; --help lists the keys",
        )

    def refused(self, kind: Any, node: Node, key: str) -> ConfigError:
        """Return the refusal of a value that is not of its key's type."""
        return ConfigError(
            f"{key} is not {spelled(kind)}",
            found=self.excerpt(node, key),
            fix=_advice(kind, node, key),
        )

    def excerpt(self, node: Node, key: str) -> str:
        """Return what stands where, for an error."""
        text = node.value if isinstance(node, ScalarNode) else _kind_of(node)
        if not isinstance(node, ScalarNode) and not self.source:
            start, end = node.start_mark, node.end_mark
            text = str(start.buffer)[start.pointer : end.pointer]
        if not self.source:
            return f"{key}={text}"
        line = f", line {node.start_mark.line + 1}" if node.start_mark else ""
        quote = "'" if is_quoted(node) else ""
        return f"{key}: {quote}{text}{quote} in {self.source}{line}"

    def _one_of(self, kind: Any, node: Node, key: str) -> Any:
        """Return the value as the first of some types whose value it is."""
        kinds = [one for one in get_args(kind) if one is not NoneType]
        if isinstance(node, ScalarNode) and node.tag == NULL and len(kinds) < len(get_args(kind)):
            return None
        for one in kinds:
            try:
                return self.value(one, node, key)
            except ConfigError:
                if len(kinds) == 1:
                    raise
        raise self.refused(kind, node, key)

    def _flow(self, kind: Any, text: str, key: str) -> Node:
        """Return the list or mapping that an argument is, nothing of which may be a comment."""
        try:
            node = yaml.compose(text, yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            node = None
        if node is None or node.end_mark.index != len(text.rstrip()):
            raise ConfigError(
                f"{key} is not {spelled(kind)}",
                found=f"{key}={text}",
                fix=f"write {key}=[a,b], with quotes around what holds one of []{{}},#:'\"",
            )
        return node


EMPTY = MappingNode("tag:yaml.org,2002:map", [])
_MARK = yaml.Mark("", 0, 0, 0, "", 0)  # the beginning of an argument


def represented(values: Mapping[str, Any]) -> MappingNode:
    """Return plain values as YAML would hold them, each with the type that it has.

    Raises
    ------
    ConfigError
        One of them is not plain.
    """
    try:
        node = SafeRepresenter(sort_keys=False).represent_data(dict(values))
    except yaml.YAMLError as error:
        raise ConfigError(
            "A value is not plain",
            found=str(error.args[-1:] and type(error.args[-1]).__name__),
            fix="use text, numbers, lists and dicts",
        ) from error
    assert isinstance(node, MappingNode)
    return node


def composed(name: str) -> str:
    """Return the form of a name that all its spellings in Unicode share."""
    return unicodedata.normalize("NFC", name)


def holds_text(kind: Any) -> bool:
    """Return whether any text is a value of a type."""
    return kind is str or (get_origin(kind) in (Union, UnionType) and str in get_args(kind))


def _is_flow(kind: Any, text: str) -> bool:
    """Return whether a text is a list or a mapping where a type may be that or text.

    A glob that begins with a bracket ends otherwise; no URI begins with a brace.
    """
    if text[0] == "{":
        return any(get_origin(one) in (dict, Mapping) for one in get_args(kind))
    return text.endswith("]") and list[str] in get_args(kind)


def spelled(kind: Any, many: bool = False) -> str:
    """Return a type in words, for example ``a list of finite numbers``."""
    names = {str: ("text", "texts"), int: ("a whole number", "whole numbers"),
             float: ("a finite number", "finite numbers"), bool: ("true or false", "truths"),
             NoneType: ("null", "nulls")}  # fmt: skip
    origin, inner = get_origin(kind), get_args(kind)
    if kind in names:
        return names[kind][many]
    if origin is list:
        return ("lists of " if many else "a list of ") + spelled(inner[0], True)
    if origin in (dict, Mapping):
        return f"a mapping from names to {spelled(inner[1], True)}"
    if origin is Literal:
        return _either([str(word) for word in inner])
    if origin in (Union, UnionType):
        return _either([spelled(one) for one in inner])
    return "a section of keys"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a question that names the nearest of some names, or nothing if none is near."""
    near = nearest_name(name, names)
    return f"; did you mean {near!r}?" if near else ""


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the nearest of some names, or None if none is near.

    Examples
    --------
    >>> nearest_name("tissue", ["tissues"]), nearest_name("uri", ["model", "tracking.uri"])
    ('tissues', 'tracking.uri')
    """
    names = list(names)
    in_a_section = [one for one in names if one.endswith(f".{name}")]
    near = in_a_section or difflib.get_close_matches(name, names, n=1)
    return near[0] if near else None


def _advice(kind: Any, node: Node, key: str) -> str:
    """Return what to write instead of a value that is not of its key's type."""
    word = node.value if isinstance(node, ScalarNode) else ""
    plain = re.sub(r"^([+-]?)0+(?=[0-9])", r"\1", word)
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]
    words = [
        str(one) for member in kinds if get_origin(member) is Literal for one in get_args(member)
    ]
    if plain != word and (int in kinds or float in kinds) and re.fullmatch(FRACTION, plain):
        return f"write {plain}: readers differ about numbers with a 0 in front"
    if is_quoted(node) and re.fullmatch(FRACTION, word):
        return f"write {word} without quotes"
    if node.tag == NULL and str in kinds:
        return "quote it, if that is the text: 'null'"
    if word and list[str] in kinds:
        return f"write for example {key}=[{word}]"
    if near := nearest(word, words):
        return f"correct it{near}"
    examples = [f"{key}={text}" for one in kinds if (text := EXAMPLES.get(one))]
    examples += [f"{key}={words[0]}"] if words else []
    return f"write for example {_either(examples)}" if examples else "--help says what it is"


def _kind_of(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, SequenceNode) else "a word"


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
