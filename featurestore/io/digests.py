"""SHA-256 of files, remembered, so that a cohort of 20 GB is hashed once.

What was found is remembered under what the file system says of a file and no program can set back:
see `Identity`. `featurestore.io.digest_cache` keeps it between processes.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from featurestore.errors import ArtifactError
from featurestore.io import digest_cache
from featurestore.io.atomic import HOME
from featurestore.io.digest_cache import Identity
from featurestore.io.objects.store import OUTLINES, entry_of

T = TypeVar("T")

SETTLED = 2_000_000_000
"""Nanoseconds that a file has to lie still: no file system's times are coarser."""

_HASHED: dict[Identity, str] = {}  # what this process knows


def digest(files: Mapping[str, Path], remember: bool = True) -> str:
    """Return one SHA-256 over the names and contents of an artifact's files.

    A file's own digest is remembered, in this process and under `HOME`, unless it was changed in
    the last two seconds: a cohort of 20 GB is hashed once, not at each run.

    Parameters
    ----------
    files
        Path by name: the path within the artifact, whose folders may be partitions.
    remember
        False writes nothing.

    Raises
    ------
    ArtifactError
        A file was changed while it was read.
    """
    return _combined(files.items(), sums(files.values(), remember))


def earlier(files: Mapping[str, Path]) -> str:
    """Return the digest of an artifact as runs recorded it when names left out the folders."""
    named = [(PurePosixPath(name).name, file) for name, file in files.items()]
    return _combined(named, sums(files.values()))


def _combined(named: Iterable[tuple[str, Path]], by_path: Mapping[Path, str]) -> str:
    lines = (f"{name}:{by_path[file]}\n" for name, file in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def of_values(values: Any) -> str:
    """Return the SHA-256 of plain values: of lists in their order, of mappings in any."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()


def stamp(files: Mapping[str, Path]) -> str:
    """Return a digest of what the file system says of an artifact's files, and of their names.

    It tells artifacts apart without reading them: hashing embeddings takes as long as using them.
    """
    lines = "".join(f"{name}|{identity(file).wherever}\n" for name, file in files.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def identity(file: Path) -> Identity:
    """Return what the file system says of a file; of an object, what its store has said."""
    stat, entry = file.stat(), entry_of(file)
    return Identity.of_object(entry[1], stat.st_size) if entry else Identity.of(stat)


def identities(files: Iterable[Path]) -> dict[Path, Identity]:
    """Return what the file system says of some files."""
    return {file: identity(file) for file in files}


def sums(files: Iterable[Path], remember: bool = False, reread: bool = False) -> dict[Path, str]:
    """Return the SHA-256 of each of some files.

    Parameters
    ----------
    remember
        Whether to keep what is found for other processes.
    reread
        Whether to read every file, whatever is remembered of it.

    Raises
    ------
    ArtifactError
        A file was changed while it was read.
    """
    are = identities(files)
    asked = set(are.values()) - (set() if reread else _HASHED.keys())
    recorded = {} if reread else digest_cache.load(asked)
    recorded |= {one: _HASHED[one] for one in are.values() if one in _HASHED and not reread}
    fresh = [file for file, one in are.items() if one not in recorded]
    stable = _settled(are[file] for file in fresh)  # before it is read, or a change could hide
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = dict(zip(fresh, pool.map(sha256, fresh), strict=True))
    confirm({file: are[file] for file in fresh})
    result = {file: hashed[file] if file in hashed else recorded[one] for file, one in are.items()}
    _HASHED.update({one: result[file] for file, one in are.items() if one in {*recorded, *stable}})
    if remember:
        digest_cache.save(
            {file: (one, result[file]) for file, one in are.items() if one in _HASHED}
        )
    return result


class Hashing:
    """Files that are hashed as they are used, so that their bytes are read once.

    What is found is remembered by this process, if the file lay still before.

    Parameters
    ----------
    identities
        What the file system said of the files before they were first read.
    """

    def __init__(self, identities: Mapping[Path, Identity]) -> None:
        self._identities, self._stable = identities, _settled(identities.values())

    def content(self, file: Path) -> tuple[str, bytes]:
        """Return a file's SHA-256 and its bytes.

        Raises
        ------
        ArtifactError
            The file was changed.
        """
        content = file.read_bytes()
        return self._confirmed(file, hashlib.sha256(content).hexdigest()), content

    def during(self, file: Path, work: Callable[[], T]) -> tuple[str, T]:
        """Return a file's SHA-256 and the result of some work that reads it at the same time.

        Raises
        ------
        ArtifactError
            The file was changed.
        """
        with ThreadPoolExecutor(1) as thread:
            hashed = thread.submit(sha256, file)
            result = work()
            return self._confirmed(file, hashed.result()), result

    def _confirmed(self, file: Path, content: str) -> str:
        one = self._identities[file]
        confirm({file: one})
        if one in self._stable:
            _HASHED[one] = content
        return content


def remembered(files: Mapping[Path, Identity]) -> dict[Path, str]:
    """Return what is remembered of some files, none of which is read; the others are left out.

    Parameters
    ----------
    files
        What the file system says of each, or said of it when it was first read.
    """
    recorded = known(files.values())
    return {file: recorded[one] for file, one in files.items() if one in recorded}


def known(identities: Iterable[Identity]) -> dict[Identity, str]:
    """Return what is remembered of files by what the file system says of them."""
    here, asked = {}, []
    for one in identities:
        if one in _HASHED:
            here[one] = _HASHED[one]
        else:
            asked.append(one)
    return here | digest_cache.load(asked)


def remember_here(sums: Mapping[Path, str]) -> None:
    """Remember digests in this process, of files that it has written or compared."""
    _HASHED.update({identity(file): value for file, value in sums.items()})


def remember(sums: Mapping[Path, str]) -> None:
    """Remember the same in the cache, for other processes as well."""
    remember_here(sums)
    digest_cache.save({file: (identity(file), value) for file, value in sums.items()})


def remember_remote(sums: Mapping[Path, str], before: Mapping[Path, Identity]) -> None:
    """Remember in this process what another machine has hashed, of files that lay still.

    Parameters
    ----------
    before
        What the file system said of the files before they were read.

    Raises
    ------
    ArtifactError
        A file was changed meanwhile.
    """
    confirm({file: before[file] for file in sums})
    stable = _settled(before[file] for file in sums)
    _HASHED.update({before[file]: one for file, one in sums.items() if before[file] in stable})


def confirm(before: Mapping[Path, Identity]) -> None:
    """Refuse files that are not what they were before: what was read of them fits no digest.

    Raises
    ------
    ArtifactError
        One was changed.
    """
    for file in changed(before):
        raise ArtifactError(
            f"{file} was changed while it was read",
            found="another size, time or file than before",
            fix="run again, once nobody writes there",
        )


def changed(before: Mapping[Path, Identity]) -> Iterator[Path]:
    """Yield the files that are not what they were before, or gone."""
    for file, one in before.items():
        try:
            same = identity(file) == one
        except OSError:
            same = False
        if not same:
            yield file


def wrongly_remembered(files: Iterable[Path]) -> list[Path]:
    """Return the files whose content is not what is remembered of them; that is corrected."""
    are = identities(files)
    recorded = digest_cache.load(are.values())
    hashed = sums(are, remember=True, reread=True)
    return [file for file, one in are.items() if one in recorded and recorded[one] != hashed[file]]


def _settled(identities: Iterable[Identity]) -> set[Identity]:
    """Return those that have not changed for `SETTLED`, by the clock of their file system."""
    alike = set(identities)
    now = {device: _clock(device) for device in {one.device for one in alike}}
    return {
        one
        for one in alike
        if now[one.device] - one.ctime > SETTLED and abs(now[one.device] - one.mtime) > SETTLED
    }


def _clock(device: int) -> int:
    """Return the time, by the file system's clock where the working folder lies on that device."""
    try:
        with tempfile.TemporaryFile(dir=HOME if HOME.is_dir() else Path()) as fresh:
            stat = os.fstat(fresh.fileno())
            if stat.st_dev == device:
                return stat.st_ctime_ns
    except OSError:  # it cannot be written
        pass
    return time.time_ns()


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, which is read whatever is remembered of it."""
    entry = entry_of(file)
    assert entry is None or entry[0] != OUTLINES, f"{file} has holes"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
