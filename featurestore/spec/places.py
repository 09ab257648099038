"""Where the artifacts of a file lie: its ``data.root`` says from where its relative paths start.

Without one they start at the working folder, as those of arguments and of recorded runs do. The
decision is docs/decisions/042-own-data.md.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yaml import MappingNode, Node

from featurestore.spec.rules import Artifacts, field_names
from featurestore.spec.typed import Reader

KEY = "data.root"
YAML = (".yaml", ".yml")
"""The suffixes of a file of keys."""
DEFAULT_NAME = "data.yaml"
"""What `featurestore init` writes, unless another name is asked for."""


def divided(reader: Reader, root: MappingNode) -> tuple[MappingNode, str | None]:
    """Return a document without its ``data.root``, and that; None where it has none."""
    data = reader.entries(root).get("data")
    place = data and reader.entries(data, "data").get("root")
    if not isinstance(data, MappingNode) or place is None:
        return root, None
    rest = MappingNode(data.tag, [pair for pair in data.value if pair[1] is not place])
    pairs: list[tuple[Node, Node]] = [(k, rest if v is data else v) for k, v in root.value]
    return MappingNode(root.tag, pairs), reader.value(str, place, KEY)


def placed(data: dict[str, Any], file: Path, root: str | None) -> dict[str, Any]:
    """Return the section ``data`` of a file with the paths of its artifacts from the root.

    Parameters
    ----------
    data
        The values of the section; URIs, and what is not set, stay as they are.
    file
        Whose section it is: its own folder is where a relative ``root`` starts.
    """
    if root is None:
        return data
    folder = absolute(absolute(file.parent) / root)
    names = [name for name in field_names(Artifacts) if name in data]
    return data | {name: _below(folder, data[name]) for name in names}


def _below(folder: Path, uris: Any) -> Any:
    """Return a path from a folder; of a list, or of several encoders, each of them."""
    match uris:
        case list():
            return [_below(folder, uri) for uri in uris]
        case dict():
            return {name: _below(folder, uri) for name, uri in uris.items()}
    return str(folder / uris) if is_path(uris) else uris


def file_question(word: str, group: str = "data") -> str:
    """Return a question for the file of keys that a word means, with or without its suffix.

    Nothing is asked of a word without the suffix beside which no such file lies.
    """
    names = [word] if word.endswith(YAML) else [word + suffix for suffix in YAML]
    meant = [name for name in names if name == word or Path(name).is_file()]
    return f"; did you mean {group}={meant[0]}?" if meant else ""


def unread_default() -> str | None:
    """Return a note for who names no data, in a folder that has some of its own."""
    if not Path(DEFAULT_NAME).is_file():
        return None
    return (
        f"data: the embedded digits; {DEFAULT_NAME} here is not read, name it: "
        f"data={DEFAULT_NAME} (or data=digits)"
    )


def absolute(path: Path) -> Path:
    """Return a path from the root; links stay as they are named, but for what is above them."""
    return path.resolve() if ".." in path.parts else path.absolute()


def is_path(uri: object) -> bool:
    """Return whether a value is a path, not a URI with a scheme."""
    return isinstance(uri, str) and bool(uri) and len(urlsplit(uri).scheme) < 2 and uri != "???"
