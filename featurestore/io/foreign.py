"""What other tools write, given where Parquet is wanted: what to run instead."""

import json
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from shlex import quote

TOOLS = {
    ".h5": "trident", ".hdf5": "trident", ".pt": "clam", ".pth": "clam", ".npz": "slide2vec",
    ".lance": "lance", ".arrow": "arrow", ".feather": "arrow", ".zarr": "arrow",
}  # fmt: skip
"""By the suffix of a file or folder: the format of `featurestore import` that may be meant."""
TEXT = {".csv": "", ".tsv": ', sep="\\t"'}
"""By the suffix of a table of text: what pandas is told to read it."""
OTHERS = {"trident": "clam or stamp", "clam": "slide2vec or eva"}
LOOKED_AT = 1000  # entries of a folder, and of the folders in it


def advice(path: Path) -> str | None:
    """Return what to run on a file, or on a folder with such files; None if it is none of them."""
    sample = path if path.suffix.lower() in TOOLS else _within(path, TOOLS)
    if sample is None:
        table = path if is_text(path) else _within(path, TEXT)
        return None if table is None or not table.is_file() else recipe(table)
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


def is_text(file: Path) -> bool:
    """Return whether a file is a table of text, by its name."""
    return file.suffix.lower() in TEXT


def unread(file: Path) -> str:
    """Return what a file is that cannot be read as Parquet, in words."""
    return "a table of text (CSV), not Parquet" if is_text(file) else "not a whole Parquet file"


def recipe(table: Path) -> str:
    """Return what writes a table of text as Parquet: names of slides stay text, 007 as well."""
    separator = TEXT[table.suffix.lower()]
    source, target = json.dumps(str(table)), json.dumps(str(table.with_suffix(".parquet")))
    code = f'read_csv({source}{separator}, dtype={{"slide_id": str}}).to_parquet({target})'
    return (
        f"write tables of text as Parquet: `python -c {quote(f'import pandas as pd; pd.{code}')}`"
    )


def _within(folder: Path, suffixes: Collection[str]) -> Path | None:
    if not folder.is_dir():
        return None
    for pattern in ("*", "*/*"):
        entries = islice(folder.glob(pattern), LOOKED_AT)
        known = sorted(entry for entry in entries if entry.suffix.lower() in suffixes)
        if known:
            return known[0]
    return None
