"""SHA-256 of files, remembered, so that a cohort of 20 GB is hashed once."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featurestore.atomic import HOME, write_bytes

_HASHED: dict[str, str] = {}  # what this process knows: path, size, time of change -> SHA-256


def digest(files: Mapping[str, Path], remember: bool = True) -> str:
    """Return one SHA-256 over the names and contents of an artifact's files.

    A file's own digest is remembered under `HOME` by path, size and time of change: a cohort of
    20 GB is hashed once, not at each run. ``remember=False`` writes nothing.

    Parameters
    ----------
    files
        Path by name: the path within the artifact, whose folders may be partitions.
    """
    memory = HOME / "digests.json"
    known: dict[str, str] = json.loads(memory.read_text()) if memory.exists() else {}
    labels = {name: _label(file) for name, file in files.items()}
    _HASHED.update({label: known[label] for label in labels.values() if label in known})
    fresh = [name for name, label in labels.items() if label not in _HASHED]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(_hash, [files[name] for name in fresh])
        for name, found in zip(fresh, hashes, strict=True):
            _HASHED[labels[name]] = found
    if remember and not known.keys() >= set(labels.values()):
        known |= {label: _HASHED[label] for label in labels.values()}
        write_bytes(memory, json.dumps(known, indent=0).encode())
    lines = (f"{name}:{_HASHED[label]}\n" for name, label in labels.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp(files: Mapping[str, Path]) -> str:
    """Return a digest of the names, sizes and times of change of an artifact's files.

    It tells artifacts apart without reading them: hashing embeddings takes as long as using them.
    """
    stats = {name: file.stat() for name, file in files.items()}
    lines = "".join(f"{name}|{s.st_size}|{s.st_mtime_ns}\n" for name, s in stats.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _label(file: Path) -> str:
    stat = file.stat()
    return f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
