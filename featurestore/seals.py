"""Seals: what a folder held when it was whole, so that damage is found and not used.

A seal stands beside its folder: the digest that names the folder, and the size and SHA-256 of each
file. Small files are hashed whenever the folder is opened; a large one where the file system says
that it is not the file that was written.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from featurestore import digests
from featurestore.atomic import write_bytes
from featurestore.errors import ArtifactError
from featurestore.ledger import Identity

SUFFIX = ".seal"
SMALL = 64 * 2**20  # bytes

Checks = Mapping[str, Callable[[Path], str | None]]
"""By the name of a file: what is wrong with it, in words, in place of a SHA-256."""

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
    names = {file.relative_to(fresh).as_posix(): file for file in fresh.rglob("*")
             if file.is_file()}  # fmt: skip
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
    """
    try:
        said = _read(folder)
        if not said["digest"].startswith(digest[: len(folder.name)]):
            return f"it is {said['digest'][: len(folder.name)]} by its seal"
        named = {name: one for name, one in said["files"].items() if only is None or name in only}
        for name in sorted(named, key=lambda name: name in checks):  # which read the others
            wrong = _file_fault(folder / name, named[name], checks.get(name), wholly)
            if wrong:
                return f"{name} {wrong}"
        _renew(folder, said, named)
    except FileNotFoundError:
        return "it has no seal"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return "its seal is damaged"
    return None


def _file_fault(
    file: Path, one: dict[str, Any], check: Callable[[Path], str | None] | None, wholly: bool
) -> str | None:
    if not file.is_file():
        return "is missing"
    if file.stat().st_size != one["bytes"]:
        return f"has {file.stat().st_size:,} bytes, {one['bytes']:,} were written"
    if one["bytes"] > SMALL and one["is"] == _is(file) and not wholly:
        return None
    if check is None:
        same = digests.sums([file], anew=wholly)[file] == one["sha256"]
        return None if same else "has another SHA-256 than what was written"
    if digests.identity(file) in _SOUND and not wholly:
        return None
    wrong = check(file)
    if wrong is None:
        _SOUND.add(digests.identity(file))
    return wrong


def _renew(folder: Path, said: dict[str, Any], named: Mapping[str, dict[str, Any]]) -> None:
    """Note what the files of a folder that was copied or touched are now: not to be read again."""
    moved = {name: _is(folder / name) for name, one in named.items() if one["bytes"] > SMALL}
    if all(named[name]["is"] == now for name, now in moved.items()):
        return
    for name, now in moved.items():
        said["files"][name]["is"] = now
    with suppress(ArtifactError):  # a reader may not be allowed to write
        _write(folder, said)


def _is(file: Path) -> str:
    return digests.identity(file).wherever


def _write(folder: Path, said: dict[str, Any]) -> None:
    write_bytes(path(folder), json.dumps(said | {"seal": _own(said)}, indent=1).encode())


def _read(folder: Path) -> dict[str, Any]:
    said = json.loads(path(folder).read_bytes())
    if said.pop("seal") != _own(said):
        raise ValueError
    return dict(said)


def _own(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
