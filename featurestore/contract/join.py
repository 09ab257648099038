"""Whether tiles and embeddings meet: the one verdict of all who join them."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine
from featurestore.backend.errors import translated
from featurestore.contract import causes
from featurestore.contract.causes import Cause, Keys
from featurestore.contract.violation import Violation, key_text
from featurestore.errors import EmptyViewError, JoinError
from featurestore.views.folds import KEY
from featurestore.views.matches import match_view

NAMED = 3  # slides in a message
SUSPECT = 0.5  # a share of tiles without an embedding of which the cause is looked for


@dataclass(frozen=True)
class Join:
    """Tiles and the embeddings that they are to have, as lazy tables with the key.

    Parameters
    ----------
    title
        What the tiles are called in messages, for example ``test tiles``.
    tiles
        All of them.
    survivors
        Those that are to have an embedding.
    embeddings
        Any table with the key.
    """

    title: str
    tiles: ir.Table
    survivors: ir.Table
    embeddings: ir.Table

    @property
    def keys(self) -> Keys:
        """All of them as the cause of a poor join is guessed from."""
        return Keys(self.tiles, self.survivors, self.embeddings)

    @property
    def missing(self) -> ir.Table:
        """The survivors without an embedding."""
        return self.survivors.select(*KEY).anti_join(self.embeddings, list(KEY))

    def matches(self) -> pa.Table:
        """Return ``slide_id, tiles, missing`` of the survivors, the worst slides first."""
        with translated():
            return _table(match_view(self.survivors, self.embeddings).to_pyarrow().to_pylist())


SLIDES = pa.schema({"slide_id": pa.string(), "tiles": pa.int64(), "missing": pa.int64()})


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    order = sorted(rows, key=lambda row: (-_share(row), -row["missing"], row["slide_id"]))
    return pa.Table.from_pylist(order, SLIDES)


def summary(matches: pa.Table) -> dict[str, Any]:
    """Return what the verdict takes of `Join.matches`: all tiles, and those of the worst slide."""
    total = {name: sum(matches[name].to_pylist()) for name in ("tiles", "missing")}
    return {**total, "worst": next(iter(matches.slice(0, 1).to_pylist()), None)}


def is_refused(summary: dict[str, Any], allowed: float) -> bool:
    """Return whether more than a share of a cohort, or of a slide of it, has no embedding.

    Parameters
    ----------
    summary
        Of `summary`.
    allowed
        ``allow_missing``, in [0, 1].
    """
    return max(_share(summary), _share(summary["worst"] or summary)) > allowed


def _share(counts: dict[str, Any]) -> float:
    return counts["missing"] / counts["tiles"] if counts["tiles"] else 0.0


def judged(join: Join, matches: pa.Table, allowed: float) -> tuple[pa.Table, Violation | None]:
    """Return the refusal of tiles that hardly have embeddings, with its cause; None if they have.

    Where one change of coordinates lets tiles meet, those that meet without it do so by chance, at
    a wrong place: they count as missing, whatever share is allowed but all.

    Parameters
    ----------
    matches
        Of `Join.matches`.
    allowed
        ``allow_missing``, in [0, 1].

    Returns
    -------
    pa.Table
        The matches, without those by chance.
    """
    suspect = min(allowed, SUSPECT) if allowed < 1 else 1.0
    if not is_refused(summary(matches), suspect):
        return matches, None
    cause = _cause(join, matches, suspect)
    matches = _without_chance(matches, cause.by_chance)
    counts = summary(matches)
    if not is_refused(counts, allowed):
        return matches, None
    poor = [row for row in matches.to_pylist() if _share(row) > allowed]
    if _share(counts) > allowed:
        wrong = f"{counts['missing']:,} of {counts['tiles']:,} {join.title} have no embedding"
    else:
        wrong = f"{len(poor):,} of {len(matches):,} slides lack embeddings of their {join.title}"
    wrong += " of their own" if cause.by_chance else ""
    most = math.ceil(100 * max(_share(counts), _share(counts["worst"]))) / 100
    # What is wrong with every key is not mended by leaving most tiles out.
    drop = "" if cause.change else f"; or let them be dropped: allow_missing={most:g}"
    found = f"allow_missing={allowed:g}; {_worst(poor)}{cause.text}"
    return matches, Violation(wrong, found, cause.fix + drop, counts["missing"], kind=JoinError)


def _cause(join: Join, matches: pa.Table, suspect: float) -> Cause:
    """Return why tiles have no embedding: of all slides, or of the poor ones, if most have some."""
    missing = join.missing
    if _share(summary(matches)) <= suspect:
        names = [row["slide_id"] for row in matches.to_pylist() if _share(row) > suspect]
        table = pa.table({"slide_id": pa.array(names, pa.string())})
        name = ibis.util.gen_name("parquet")
        asked = engine.register(join.tiles.get_backend(), name, table)
        missing = missing.semi_join(asked, "slide_id")
    return causes.guess(join.keys, missing)


def _without_chance(matches: pa.Table, slides: Collection[str]) -> pa.Table:
    """Return `Join.matches` in which no tile of some slides has an embedding."""
    if not slides:
        return matches
    rows = [
        {**row, "missing": row["tiles"]} if row["slide_id"] in slides else row
        for row in matches.to_pylist()
    ]
    return _table(rows)


def _worst(rows: list[dict[str, Any]]) -> str:
    """Spell the first of some slides, the worst, for a message."""
    slides = [f"{row['missing']:,} of {row['tiles']:,} in {row['slide_id']!r}" for row in rows]
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    return f"without: {', '.join(slides[:NAMED])}{more}; " if rows else ""


def check(join: Join, allowed: float) -> pa.Table:
    """Refuse tiles that hardly have embeddings; return `Join.matches` of others.

    Raises
    ------
    EmptyViewError
        None has one.
    JoinError
        More than the allowed share of a cohort, or of a slide, has none.
    """
    matches = join.matches()
    counts = summary(matches)
    if counts["missing"] == counts["tiles"]:
        raise empty(join)
    matches, refusal = judged(join, matches, allowed)
    if refusal:
        raise refusal.refusal
    return matches


def empty(join: Join) -> EmptyViewError:
    """Return the refusal of a join without a row, with the first key of both sides."""
    with translated():
        ours, theirs = (
            side.select(*KEY).order_by(list(KEY)).limit(1).to_pyarrow().to_pylist()
            for side in (join.survivors, join.embeddings)
        )
    if ours and theirs:
        found, fix, *_ = causes.guess(join.keys, join.missing)
    else:
        first = f"the first tile at {key_text(ours[0])}" if ours else "there is no tile"
        embedded = key_text(theirs[0]) if theirs else "nowhere: there is none"
        found = f"{first}; the first embedding at {embedded}"
        fix = "name tiles and the embeddings of the same cohort"
    return EmptyViewError(
        f"No {join.title} have an embedding: the join is empty", found=found, fix=fix
    )
