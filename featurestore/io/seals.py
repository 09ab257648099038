"""Seals: what a folder held when it was whole, so that damage is found and not used.

A seal stands beside its folder: the digest that names the folder, and the size and SHA-256 of each
file. The smallest files are hashed whenever the folder is opened, as many as `SMALL` takes; the
others where the file system says that they are not the files that were written.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from featurestore.errors import ArtifactError
from featurestore.io import digests
from featurestore.io.atomic import write_bytes
from featurestore.io.digest_cache import Identity

SUFFIX = ".seal"
SMALL = 64 * 2**20  # bytes of all files that are hashed whenever their folder is opened

Checks = Mapping[str, Callable[[Path], str | None]]
"""By the name of a file: what is wrong with it, in words, in place of a SHA-256."""

Files = Mapping[str, dict[str, Any]]
"""What a seal says of a file: ``bytes``, ``sha256``, and what ``is`` it in the file system."""

_SOUND: set[Identity] = set()  # files that this process has checked


def path(folder: Path) -> Path:
    """Return where a folder's seal is."""
    return folder.with_suffix(SUFFIX)


def seal(fresh: Path, folder: Path, digest: str, checks: Checks) -> None:
    """Write the seal of a folder that is about to take its name.

    Parameters
    ----------
    fresh
        Where it is yet.
    folder
        Where it will be.
    digest
        Names all that determines the content.
    checks
        Files that need no SHA-256.
    """
    names = _within(fresh)
    sums = digests.sums(file for name, file in names.items() if name not in checks)
    files = {
        name: {"bytes": file.stat().st_size, "sha256": sums.get(file), "is": _is(file)}
        for name, file in names.items()
    }
    _write(folder, {"digest": digest, "files": files})


def fault(
    folder: Path,
    digest: str,
    checks: Checks,
    only: Collection[str] | None = None,
    wholly: bool = False,
) -> str | None:
    """Return what is wrong with a folder, in words; None if nothing was found.

    Parameters
    ----------
    digest
        That it is asked for by, or its beginning.
    checks
        As when it was sealed.
    only
        The names of files to look at; all by default.
    wholly
        Whether every byte is read.

    Raises
    ------
    ArtifactError
        This user may not read it.
    """
    try:
        record = _read(folder)
        if not record["digest"].startswith(digest[: len(folder.name)]):
            return f"it is {record['digest'][: len(folder.name)]} by its seal"
        files = {name: one for name, one in record["files"].items() if only is None or name in only}
        wrong = _sizes(folder, files) or _bytes(folder, files, checks, wholly)
        if wrong is None and only is None:
            wrong = _added(folder, files)
        if wrong is None:
            _renew(folder, record, files)
        return wrong
    except FileNotFoundError:
        return "it has no seal"
    except PermissionError as error:  # no damage: it may be sound to its owner
        raise ArtifactError(
            f"{error.filename} cannot be read",
            found=error.strerror or "no right to",
            fix="ask its owner for the right to read it, or work in another folder",
        ) from error
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return "its seal is damaged"


def digest_of(content: bytes, fresh: Path) -> str | None:
    """Return the digest of a folder that came from elsewhere with its seal; None if it is damaged.

    Parameters
    ----------
    content
        The seal.
    fresh
        What came with it.
    """
    try:
        record = _record(content)
        sums = digests.sums(_within(fresh).values(), reread=True)
        said = {name: one["sha256"] for name, one in record["files"].items()}
        came = {name: sums[file] for name, file in _within(fresh).items()}
        return str(record["digest"]) if said == came else None
    except (ValueError, KeyError, TypeError):
        return None


def _within(folder: Path) -> dict[str, Path]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def _added(folder: Path, files: Files) -> str | None:
    # A network disk, or a desktop, leaves hidden files of its own, which nothing here reads.
    visible = (name for name, file in _within(folder).items() if not file.name.startswith("."))
    if added := sorted(set(visible) - files.keys()):
        return f"{added[0]} was added after it was made"
    return None


def _sizes(folder: Path, files: Files) -> str | None:
    for name, one in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        size = (folder / name).stat().st_size
        if size != one["bytes"]:
            return f"{name} has {size:,} bytes, {one['bytes']:,} were written"
    return None


def _bytes(folder: Path, files: Files, checks: Checks, wholly: bool) -> str | None:
    large = _large(files)
    asked = [n for n in files if wholly or n not in large or files[n]["is"] != _is(folder / n)]
    paths = {name: folder / name for name in asked if name not in checks}
    sums = digests.sums(paths.values(), reread=wholly)
    for name, file in paths.items():
        if sums[file] != files[name]["sha256"]:
            return f"{name} has another SHA-256 than what was written"
    for name in (name for name in asked if name in checks):  # these may read the others
        file = folder / name
        if wholly or Identity.of(file.stat()) not in _SOUND:
            if wrong := checks[name](file):
                return f"{name} {wrong}"
            _SOUND.add(Identity.of(file.stat()))
    return None


def _large(files: Files) -> set[str]:
    """Return the names of the files that are left when the smallest are hashed."""
    names = sorted(files, key=lambda name: files[name]["bytes"])
    total = accumulate(files[name]["bytes"] for name in names)
    return {name for name, size in zip(names, total, strict=True) if size > SMALL}


def _renew(folder: Path, record: dict[str, Any], files: Files) -> None:
    """Note what the files of a folder that was copied or touched are now: not to be read again."""
    now = {name: _is(folder / name) for name in _large(files)}
    if any(files[name]["is"] != one for name, one in now.items()):
        for name, one in now.items():
            record["files"][name]["is"] = one
        with suppress(ArtifactError):  # a reader may not be allowed to write
            _write(folder, record)


def _is(file: Path) -> str:
    return Identity.of(file.stat()).wherever


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_bytes(path(folder), json.dumps(record | {"seal": _own(record)}, indent=1).encode())


def _read(folder: Path) -> dict[str, Any]:
    return _record(path(folder).read_bytes())


def _record(content: bytes) -> dict[str, Any]:
    # What is no mapping raises a TypeError or a ValueError.
    record = dict(json.loads(content))
    if record.pop("seal") != _own(record):
        raise ValueError
    return record


def _own(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
