"""SHA-256 of files, remembered, so that a cohort of 20 GB is hashed once."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featurestore.atomic import HOME, write_bytes

_HASHED: dict[str, str] = {}  # what this process knows: path, size, time of change -> SHA-256


def digest(files: Iterable[Path], remember: bool = True) -> str:
    """Return one SHA-256 over the names and contents of some files.

    A file's own digest is remembered under `HOME` by path, size and time of change: a cohort of
    20 GB is hashed once, not at each run. ``remember=False`` writes nothing.
    """
    memory = HOME / "digests.json"
    known: dict[str, str] = json.loads(memory.read_text()) if memory.exists() else {}
    labels = {file: _label(file) for file in files}
    _HASHED.update({label: known[label] for label in labels.values() if label in known})
    fresh = [file for file, label in labels.items() if label not in _HASHED]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, found in zip(fresh, pool.map(_hash, fresh), strict=True):
            _HASHED[labels[file]] = found
    if remember and not known.keys() >= set(labels.values()):
        known |= {label: _HASHED[label] for label in labels.values()}
        write_bytes(memory, json.dumps(known, indent=0).encode())
    lines = (f"{file.name}:{_HASHED[label]}\n" for file, label in labels.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp(files: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of change of some files.

    It tells artifacts apart without reading them: hashing embeddings takes as long as using them.
    """
    lines = "".join(f"{f.name}|{f.stat().st_size}|{f.stat().st_mtime_ns}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _label(file: Path) -> str:
    stat = file.stat()
    return f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
