"""Names that people give to snapshots: ``march`` for 4f0c..., kept for as long as it is named.

They lie in the working folder and, where machines share a store, in that as well.
"""

import re
import tempfile
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.io import atomic
from featurestore.io.atomic import HOME
from featurestore.io.cache import NAME_LENGTH
from featurestore.io.objects import shared

FOLDER = "tags"
FORM = r"[\w][\w.-]{0,63}"
SNAPSHOT = rf"[0-9a-f]{{{NAME_LENGTH}}}"


def tags() -> dict[str, str]:
    """Return the names of the snapshots that are tagged, by tag.

    Raises
    ------
    ArtifactError
        A tag is that of one snapshot here, and of another one in the store.
    """
    here = {file.name: file.read_text() for file in sorted((HOME / FOLDER).glob("[!.]*"))}
    store = shared.current()
    elsewhere = shared_tags(store) if store else {}
    for name in here.keys() & elsewhere.keys():
        if here[name] != elsewhere[name]:
            raise ArtifactError(
                f"The tag {name} is that of two snapshots",
                found=f"{here[name]} here, {elsewhere[name]} in {store and store.uri}",
                fix=f"take it away, and give it to one: featurestore snapshots --untag {name}",
            )
    return dict(sorted((elsewhere | here).items()))


def shared_tags(store: shared.SharedStore) -> dict[str, str]:
    """Return the tags of a store."""
    named = {}
    for name, stored in store.objects(FOLDER).items():
        snapshot = store.read(stored, NAME_LENGTH).decode(errors="replace")
        if re.fullmatch(FORM, name) and re.fullmatch(SNAPSHOT, snapshot):
            named[name] = snapshot
    return named


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
    _refuse_other(name, snapshot)
    if store := shared.current():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(snapshot)
            store.write(f"{FOLDER}/{name}", file, once=True)
        _refuse_other(name, snapshot)  # of two machines that give it at once, the first has it
    atomic.write_bytes(HOME / FOLDER / name, snapshot.encode())


def _refuse_other(name: str, snapshot: str) -> None:
    named = tags().get(name, snapshot)
    if named != snapshot:
        raise ArtifactError(
            f"The tag {name} is that of another snapshot",
            found=f"{named}, not {snapshot}",
            fix=f"choose another tag, or take it away first: featurestore snapshots --untag {name}",
        )


def untag(name: str) -> str:
    """Take a tag away, here and in the store; return the names of the snapshots that had it.

    Raises
    ------
    ArtifactError
        There is no such tag.
    """
    file, store = HOME / FOLDER / name, shared.current()
    names = {file.read_text()} if re.fullmatch(FORM, name) and file.exists() else set()
    if store and name in (elsewhere := shared_tags(store)):
        names.add(elsewhere[name])
        store.remove_files([store.objects(FOLDER)[name]])
    if not names:
        raise ArtifactError(
            f"There is no tag {name!r}",
            found=", ".join(tags()) or "no tag at all",
            fix="name one of them; `featurestore snapshots` shows them",
        )
    file.unlink(missing_ok=True)
    return " and ".join(sorted(names))
