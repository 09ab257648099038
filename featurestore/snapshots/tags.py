"""Names that people give to snapshots: ``march`` for 4f0c..., kept for as long as it is named."""

import re

from featurestore.errors import ArtifactError
from featurestore.io import atomic
from featurestore.io.atomic import HOME
from featurestore.io.cache import NAME_LENGTH

FOLDER = "tags"
FORM = r"[\w][\w.-]{0,63}"


def tags() -> dict[str, str]:
    """Return the names of the snapshots that are tagged, by tag."""
    return {file.name: file.read_text() for file in sorted((HOME / FOLDER).glob("[!.]*"))}


def tag(name: str, snapshot: str) -> None:
    """Name a snapshot, which is kept from then on.

    Raises
    ------
    ArtifactError
        It is no name, could be taken for that of a snapshot, or is that of another one.
    """
    if not re.fullmatch(FORM, name) or re.fullmatch(rf"[0-9a-f]{{1,{NAME_LENGTH}}}", name):
        raise ArtifactError(
            f"{name!r} cannot name a snapshot",
            found="a tag is of letters, digits, '.', '_' and '-', and no beginning of a digest",
            fix="choose another, for example march-2026",
        )
    named = tags().get(name, snapshot)
    if named != snapshot:
        raise ArtifactError(
            f"The tag {name} is that of another snapshot",
            found=f"{named}, not {snapshot}",
            fix=f"choose another tag, or take it away first: featurestore snapshots --untag {name}",
        )
    atomic.write_bytes(HOME / FOLDER / name, snapshot.encode())


def untag(name: str) -> str:
    """Take a tag away; return the name of the snapshot that had it.

    Raises
    ------
    ArtifactError
        There is no such tag.
    """
    named = tags()
    if name not in named:
        raise ArtifactError(
            f"There is no tag {name!r}",
            found=", ".join(named) or "no tag at all",
            fix="name one of them; `featurestore snapshots` shows them",
        )
    (HOME / FOLDER / name).unlink()
    return named[name]
