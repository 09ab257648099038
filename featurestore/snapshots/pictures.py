"""Pictures of a cohort, drawn once with its snapshot, and removed with it."""

import hashlib
import importlib.metadata
import importlib.resources
from collections.abc import Callable
from pathlib import Path

from featurestore.io import cache, digests
from featurestore.snapshots.layout import SNAPSHOTS
from featurestore.snapshots.snapshot import Snapshot

KIND = "pictures"
OF = "snapshot.txt"  # whose pictures a folder holds
CODE = (
    "console/plots", "drawing", "png", "views/classes", "views/fates", "views/labels",
    "views/summaries",
)  # fmt: skip
"""The modules that say what is drawn, and how."""


def drawn(snapshot: Snapshot, draw: Callable[[Path], object]) -> list[Path]:
    """Return the PNG files of a snapshot, which nobody removes as long as this process lives.

    Parameters
    ----------
    draw
        Draws them into a folder; called where they are not there yet, or by other code.
    """
    package = importlib.resources.files("featurestore")
    code = b"".join((package / f"{name}.py").read_bytes() for name in CODE)
    content = {
        "snapshot": snapshot.digest,
        "code": hashlib.sha256(code).hexdigest(),
        "matplotlib": importlib.metadata.version("matplotlib"),
    }

    def build(folder: Path) -> None:
        draw(folder)
        (folder / OF).write_text(snapshot.folder.name)

    return sorted(cache.built(KIND, digests.of_values(content), build).glob("*.png"))


def collect() -> list[Path]:
    """Remove the pictures of snapshots that are gone; return what went."""
    snapshots = set(cache.names(SNAPSHOTS))
    folders = [cache.place(KIND, name) for name in cache.names(KIND)]
    return [folder for folder in folders if _of(folder) not in snapshots and cache.remove(folder)]


def _of(folder: Path) -> str | None:
    file = folder / OF
    return file.read_text() if file.exists() else None
