"""What a Parquet file is by its columns, and under which names those of the contract stand."""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from featurestore.contract.parquet_table import LIST_TYPES, kind
from featurestore.errors import ConfigError
from featurestore.views.classes import COVERAGE

TILES, EMBEDDINGS, SLIDES, OTHER = "tiles", "embeddings", "slides", "other"
OF_SLIDES = ("path", "extent_x", "tile_extent_x", "stride_x", "mpp_x", "level")
SYNONYMS = {
    "slide_id": ("slide", "slide_name", "slideid", "wsi", "wsi_id", "wsi_name", "image_id",
                 "image", "case", "case_id", "filename", "file", "name", "id"),
    "x": ("coord_x", "x_coord", "coords_x", "tile_x", "patch_x", "pos_x", "x0", "left"),
    "y": ("coord_y", "y_coord", "coords_y", "tile_y", "patch_y", "pos_y", "y0", "top"),
}  # fmt: skip
"""By the contract's name: what others call the column, the likeliest first."""
TYPES = {"slide_id": "text", "x": "integer", "y": "integer"}


def kinds_of(schema: pa.Schema, partition: Iterable[str] = ()) -> frozenset[str]:
    """Return what a file of these columns can be: a training set that was exported is two.

    Parameters
    ----------
    partition
        Columns that the folders give.
    """
    names = {*schema.names, *partition}
    can_be = set()
    if any(name.startswith(COVERAGE) for name in names):
        can_be.add(TILES)
    if vectors(schema):
        can_be.add(EMBEDDINGS)
    if not can_be and "id" in names and names & set(OF_SLIDES):
        can_be.add(SLIDES)
    return frozenset(can_be or {OTHER})


def vectors(schema: pa.Schema) -> list[str]:
    """Return the columns that are lists of numbers, integers only if nothing else is."""
    lists = [field for field in schema if _is_list(field.type)]
    floats = [field.name for field in lists if _value(field.type) != "integer"]
    named = [field.name for field in lists if field.name == "embedding"]
    return floats or named


def _is_list(arrow: pa.DataType) -> bool:
    return isinstance(arrow, LIST_TYPES) and _value(arrow) in (
        "halffloat", "float", "double", "integer",
    )  # fmt: skip


def _value(arrow: pa.DataType) -> str:
    return kind(arrow.value_type)


def columns_of(schema: pa.Schema, partition: Iterable[str], what: str) -> dict[str, list[str]]:
    """Return the columns that may stand for those of the contract that a file has not.

    Parameters
    ----------
    what
        ``tiles`` or ``embeddings``.
    """
    present = {field.name: kind(field.type) for field in schema}
    present |= dict.fromkeys(set(partition) - set(present), "text or integer")
    columns = {}
    for name, synonyms in SYNONYMS.items():
        if name not in present:
            by_form = {
                own.casefold(): own for own, type_ in present.items() if TYPES[name] in type_
            }
            near = [by_form[one] for one in (name, *synonyms) if one in by_form]
            if near:
                columns[name] = near
    if what == EMBEDDINGS and "embedding" not in vectors(schema):
        columns["embedding"] = vectors(schema)
    return columns


def joined_columns(guesses: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return one name for each column of all artifacts, since ``data.columns`` has one.

    Raises
    ------
    ConfigError
        Two artifacts call it by two names.
    """
    columns: dict[str, tuple[str, str]] = {}
    for artifact, names in guesses.items():
        for name, column in names.items():
            first, other = columns.setdefault(name, (column, artifact))
            if first != column:
                raise ConfigError(
                    f"{name} has two names",
                    found=f"{first!r} in the {other}, {column!r} in the {artifact}",
                    fix="rename one of the columns: data.columns has one name for all artifacts",
                )
    return {name: column for name, (column, _) in columns.items()}


def spelled(names: Sequence[str], most: int = 5) -> str:
    """Return some names, the first of many."""
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
