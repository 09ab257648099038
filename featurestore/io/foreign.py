"""Embeddings as other tools write them, given where Parquet is wanted: what to run instead."""

from itertools import islice
from pathlib import Path

TOOLS = {
    ".h5": "trident", ".hdf5": "trident", ".pt": "clam", ".pth": "clam", ".npz": "slide2vec",
    ".lance": "lance", ".arrow": "arrow", ".feather": "arrow", ".zarr": "arrow",
}  # fmt: skip
"""By the suffix of a file or folder: the format of `featurestore import` that may be meant."""
OTHERS = {"trident": "clam or stamp", "clam": "slide2vec or eva"}
LOOKED_AT = 1000  # entries of a folder, and of the folders in it


def advice(path: Path) -> str | None:
    """Return what to run on a file, or on a folder with such files; None if it is none of them."""
    sample = path if path.suffix.lower() in TOOLS else _within(path)
    if sample is None:
        return None
    suffix, tool = sample.suffix.lower(), TOOLS[sample.suffix.lower()]
    if (path / "manifest.csv").is_file():
        tool = "eva"
    elif "tile_embeddings" in {path.name, sample.parent.name}:
        tool = "slide2vec"
    instead = f" (or {OTHERS[tool]} in place of {tool})" if tool in OTHERS else ""
    command = f"featurestore import {tool} {path} --to artifacts/"
    if suffix == ".zarr":
        return f"write its arrays as Parquet or Arrow with a row a tile, then run `{command}`"
    return f"run `{command}`{instead}, and name what it writes"


def _within(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    for pattern in ("*", "*/*"):
        entries = islice(folder.glob(pattern), LOOKED_AT)
        known = sorted(entry for entry in entries if entry.suffix.lower() in TOOLS)
        if known:
            return known[0]
    return None
