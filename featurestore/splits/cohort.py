"""What a split is decided by: tiles per group and stratum, which the engine counts."""

from dataclasses import dataclass
from functools import cached_property

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.backend.errors import translated
from featurestore.contract import violation
from featurestore.contract.rules import every_tile_dropped, violations_of
from featurestore.errors import SchemaError
from featurestore.folds.extend import Codes
from featurestore.folds.units import group_codes
from featurestore.spec.split_rules import SplitRules
from featurestore.store import FeatureStore
from featurestore.views.columns import of_slides, with_columns
from featurestore.views.folds import KEY
from featurestore.views.joins import look_up, unused

PURPOSE = "to split by"
MOST = 1_000  # strata: of more, none has the tiles that its share could be told by
NOTHING = "none"  # the value of a stratum whose tiles have none


@dataclass(frozen=True)
class Cohort:
    """The groups of a cohort, and how many tiles of each stratum they hold.

    Parameters
    ----------
    names
        Of the groups, in their order, in the type of their column.
    strata
        The values of each stratum, in the order of `SplitRules.stratify`.
    counts
        Kept tiles, shape (groups, strata).
    dropped
        Tiles that the label rules drop, shape (groups,).
    slides
        ``group, slide_id``: the slides of each group.
    unembedded
        Kept tiles without an embedding, shape (groups,); None where no embeddings are configured.
        They count as kept: a split stays as it is when tiles are embedded.
    """

    names: pa.Array
    strata: list[tuple[str, ...]]
    counts: Codes
    dropped: Codes
    slides: pa.Table
    unembedded: Codes | None = None

    @cached_property
    def kept(self) -> Codes:
        """Kept tiles of each group."""
        total: Codes = self.counts.sum(axis=1)
        return total


def slides_needed(store: FeatureStore, rules: SplitRules) -> bool:
    """Return whether the slides artifact is read for a split.

    Raises
    ------
    SchemaError
        A column is neither the tiles' nor the slides', with the nearest one.
    """
    slides = store.view("slides") if store.spec.slides else None
    theirs = of_slides(store.view("tiles"), slides, rules.columns, PURPOSE)
    return slides is not None and bool(theirs or store.spec.where)


def count(store: FeatureStore, rules: SplitRules) -> Cohort:
    """Count the tiles of groups and strata; no row a tile leaves the engine.

    Raises
    ------
    SchemaError
        A column is not there, or does not divide tiles into groups or strata.
    EmptyViewError
        The label rules drop every tile.
    """
    slides = store.view("slides") if store.spec.slides else None
    thresholds = store.view("thresholds")
    tiles = with_columns(thresholds, slides, rules.columns, PURPOSE)
    _check_group(tiles, rules.group)
    _check_strata(tiles, rules.stratify)
    strata = [f"stratum_{number}" for number in range(len(rules.stratify))]
    # Names of our own: an artifact may call its columns as it likes.
    values = {
        alias: tiles[name].cast("string").fill_null(NOTHING)
        for alias, name in zip(strata, rules.stratify, strict=True)
    }
    values |= {"group": _told_apart(tiles[rules.group]), "kept": tiles.dropped_by.isnull()}
    has_embeddings = bool(store.spec.artifacts("embeddings"))
    if has_embeddings:
        tiles, values = _embedded(tiles, store.embedding_keys(), values)
    parts = tiles.select("slide_id", **values)
    missing = {"missing": parts.missing.sum()} if has_embeddings else {}
    counts = parts.group_by(["group", "kept", *strata]).aggregate(tiles=parts.count(), **missing)
    with translated():
        _check_number(parts.filter(parts.kept), strata, rules)
        rows = counts.to_pyarrow()
        members = parts.select("group", "slide_id").distinct().to_pyarrow()
    if not pc.any(rows["kept"]).as_py():
        raise every_tile_dropped(thresholds)
    return _cohort(rows, members, strata)


def _embedded(
    tiles: ir.Table, keys: ir.Table, values: dict[str, ir.Value]
) -> tuple[ir.Table, dict[str, ir.Value]]:
    """Add to the columns that are asked of tiles whether each lacks its embedding."""
    name = unused(tiles, "embedded")
    theirs = keys.select(*KEY, **{name: ibis.literal(True)})
    joined = look_up(tiles.mutate(**values), theirs, KEY, name)
    own = {value: joined[value] for value in values}
    return joined, own | {"missing": joined[name].isnull().cast("int64")}


def _told_apart(column: ir.Column) -> ir.Column:
    """Return values that can be ordered."""
    return column.cast("string") if column.type().is_boolean() else column


def _check_group(tiles: ir.Table, group: str) -> None:
    column = tiles[group]
    unknown = column.isnull()
    if column.type().is_floating():
        unknown = unknown | column.isnan()
    violation.raise_first(
        violations_of(
            tiles.filter(unknown),
            f"tiles have no {group}, by which they are to be split",
            f"fill {group}, or group by another column: --group slide_id",
        )
    )


def _check_strata(tiles: ir.Table, stratify: tuple[str, ...]) -> None:
    for name in stratify:
        if tiles[name].type().is_floating():
            raise SchemaError(
                f"Column {name!r} is no stratum: its values are floating-point numbers",
                found=str(tiles[name].type()),
                fix="write a column of text or whole numbers that says which range a tile is in",
            )


def _check_number(kept: ir.Table, strata: list[str], rules: SplitRules) -> None:
    number = len(kept.select(strata).distinct().limit(MOST + 1).to_pyarrow()) if strata else 1
    if number > MOST:
        raise SchemaError(
            f"{', '.join(rules.stratify)} make more than {MOST:,} strata",
            found=f"{number:,} or more different values",
            fix="stratify by fewer columns, or by columns with fewer values",
        )


def _cohort(rows: pa.Table, members: pa.Table, strata: list[str]) -> Cohort:
    groups, names = group_codes(rows["group"])
    kept, tiles = rows["kept"].to_numpy(), rows["tiles"].to_numpy()
    values = list(zip(*(rows[name].to_pylist() for name in strata), strict=True))
    values = values or [()] * len(rows)
    present = sorted({value for value, is_kept in zip(values, kept, strict=True) if is_kept})
    number = {value: place for place, value in enumerate(present)}
    counts = np.zeros((len(names), len(present)), dtype=np.int64)
    column = np.array([number.get(value, 0) for value in values])
    np.add.at(counts, (groups[kept], column[kept]), tiles[kept])
    dropped = np.zeros(len(names), dtype=np.int64)
    np.add.at(dropped, groups[~kept], tiles[~kept])
    unembedded = None
    if "missing" in rows.column_names:
        unembedded = np.zeros(len(names), dtype=np.int64)
        np.add.at(unembedded, groups[kept], rows["missing"].to_numpy()[kept])
    return Cohort(names, present, counts, dropped, members, unembedded)
