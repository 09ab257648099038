"""Of which objects of a store shared parts are made, so that who finds them fetches none.

Beside the files of a part that machines share lies an empty one for each object that it was made
of: its name holds what a store says of the object, and the SHA-256 of its content.
"""

import re
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featurestore.embeddings.layout import FOLDER
from featurestore.io.digest_cache import Identity
from featurestore.io.objects import shared

NAME = "object-{inode:016x}-{size}-{sha256}"
PATTERN = re.compile(r"object-([0-9a-f]{16})-(\d+)-([0-9a-f]{64})", re.ASCII)


def known(files: Mapping[Path, Identity]) -> dict[Path, str]:
    """Return the SHA-256 of those files that are objects which other machines have read."""
    store = shared.current()
    if store is None:
        return {}
    sums: dict[Identity, str] = {}
    for variants in store.entries(FOLDER).values():
        for match in (PATTERN.fullmatch(file) for one in variants for file in one.files):
            if match:
                sums[Identity.of_object(match[1], int(match[2]))] = match[3]
    return {file: sums[one] for file, one in files.items() if one in sums}


def note(made_of: Mapping[str, tuple[Identity, str]]) -> None:
    """Say of shared parts, by name, of which object they are made, and its SHA-256."""
    store = shared.current()
    if store is None or not made_of:
        return
    things = store.entries(FOLDER)
    keys = [
        f"{FOLDER}/{shared.place(name, variant.number)}/{file}"
        for name, (one, sha256) in made_of.items()
        if (file := NAME.format(inode=one.inode, size=one.size, sha256=sha256))
        for variant in things.get(name, [])
        if file not in variant.files
    ]
    if keys:
        with tempfile.NamedTemporaryFile() as empty, ThreadPoolExecutor(shared.AT_ONCE) as pool:
            list(pool.map(lambda key: store.write(key, Path(empty.name)), keys))
