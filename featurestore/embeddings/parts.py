"""The parts of an artifact: which ones it is made of, and whether they are there and whole.

A part is named by the content of its file, so that a file which is added converts itself alone, and
one that is renamed or copied converts nothing.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from featurestore.embeddings import provenance
from featurestore.embeddings.batches import KEYS as KEY_SCHEMA
from featurestore.embeddings.convert import Slice, slices
from featurestore.embeddings.damage import damages
from featurestore.embeddings.fetching import fetch_keys
from featurestore.embeddings.folder import lease, names, set_aside
from featurestore.embeddings.layout import FOLDER, FORMAT, KEYS
from featurestore.embeddings.matrix import AT_ONCE, EmbeddingMatrix
from featurestore.embeddings.part import Part, damaged, folder, is_shared
from featurestore.io import digests
from featurestore.io.objects import shared
from featurestore.io.parquet import Dataset, Fragment
from featurestore.spec.literals import Storage

NAME_LENGTH = 32  # hexadecimal digits


def named(
    files: Iterable[Fragment], storage: Storage, sums: Mapping[Path, str]
) -> dict[str, Slice]:
    """Return the slices of some files by the names of their parts.

    Parameters
    ----------
    sums
        SHA-256 of each file.
    """
    by_name = {
        name_of(piece, storage, sums[fragment.path]): piece
        for fragment in files
        for piece in slices(fragment)
    }
    return dict(sorted(by_name.items()))


def name_of(piece: Slice, storage: Storage, sha256: str) -> str:
    """Return the name of a part: a digest of all that determines its content."""
    fragment = piece.fragment
    given = {
        name: fragment.partition[name]
        for name in KEY_SCHEMA.names
        if name not in fragment.schema.names and name in fragment.partition
    }
    identity = ["part", FORMAT, sha256, given, storage, piece.groups]
    if fragment.written:
        identity.append(dict(fragment.written))
    if suffix := fragment.suffixes.get("slide_id"):
        identity.append({"suffix": suffix})
    content = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:NAME_LENGTH]


def may_be_there(name: str) -> bool:
    """Return whether there is a part of a name, which may be damaged yet (see `present`)."""
    return (folder() / f"{name}{KEYS}").exists() or is_shared(name)


def known_sums(dataset: Dataset) -> dict[Path, str]:
    """Return the SHA-256 of an artifact's files; the others are hashed as they are converted.

    Of an object that another machine has read it is known where machines share parts. Who may not
    write converts nothing, and hashes all: what is there is found by its name.
    """
    unread = {file: dataset.identities[file] for file in dataset.unread}
    if any(one.is_object for one in unread.values()):
        digests.remember_remote(provenance.known(unread), unread)
    if folder().exists() and not os.access(folder(), os.W_OK):
        return digests.sums(dataset.fetch(unread=True).identities)
    return digests.remembered(dataset.identities)


def share_provenance(dataset: Dataset, storage: Storage) -> None:
    """Let other machines know of which objects of a store an artifact's shared parts are made."""
    sums = digests.remembered({f: one for f, one in dataset.identities.items() if one.is_object})
    files = [fragment for fragment in dataset.filled if fragment.path in sums]
    made_of = {
        name: (piece.fragment.identity, sums[piece.fragment.path])
        for name, piece in named(files, storage, sums).items()
    }
    provenance.note(made_of)


def share(parts: Iterable[Part]) -> None:
    """Let other machines find some parts, unless they do."""
    store = shared.current()
    if store is not None:
        for part in [part for part in parts if not is_shared(part.name)]:
            files = {shared.PART_VALUES: part.values, shared.PART_KEYS: part.keys}
            store.upload(FOLDER, part.name, files)


def opened(parts: Sequence[Part]) -> EmbeddingMatrix:
    """Return a matrix of parts that are there.

    Raises
    ------
    ArtifactError
        One is missing or damaged.
    """
    for name, fault in damages(parts).items():
        raise damaged(name, fault)
    return EmbeddingMatrix(tuple(parts))


def present(names: Iterable[str]) -> dict[str, Part]:
    """Return those of some parts that are there; one that is damaged is set aside, with a warning.

    Raises
    ------
    ArtifactError
        It cannot be.
    """
    parts: dict[str, Part] = {}
    names = list(names)
    if store := shared.current():
        store.mark_used(FOLDER, names)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # the embeddings come when they are asked for
        list(pool.map(fetch_keys, names))
    existing = [name for name in names if (folder() / f"{name}{KEYS}").exists()]
    with ThreadPoolExecutor() as pool:
        for name, read in zip(existing, pool.map(_read, existing), strict=True):
            if isinstance(read, Part):
                parts[name] = read
            else:
                set_aside(name, _fault)
    for name in damages(parts.values()):
        set_aside(name, _fault)
        del parts[name]
    return parts


def verify() -> Iterator[tuple[str, str]]:
    """Read every byte of all parts; set aside what is damaged, and yield its name with why."""
    with lease():
        for name in names():
            if (fault := _fault(name)) and set_aside(name, _fault):
                yield name, fault


def _fault(name: str) -> str | None:
    """Read a whole part of this machine and return what is wrong with it, in words."""
    part = _read(name)
    if isinstance(part, str):
        return part
    return damages([part], wholly=True).get(name)


def _read(name: str) -> Part | str:
    """Return a part, or what is wrong with it."""
    try:
        return Part.read(name)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        return f"{name}{KEYS} cannot be read: {str(error).splitlines()[0]}"
