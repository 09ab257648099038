"""Why tiles and embeddings hardly meet, guessed from their keys: what would let most of them meet.

Candidates are made of the slides, a few for each; the engine counts the embeddings of no tile that
each of them would match on a sample of slides, all in one query, and then the best on all. No
embedding is read.
"""

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from featurestore.backend import engine
from featurestore.backend.errors import translated
from featurestore.contract.spellings import spellings
from featurestore.contract.violation import key_text
from featurestore.views.folds import KEY
from featurestore.views.matches import extent_view, rekeyed_view

LEVELS = (2, 4, 8, 16, 32, 64)  # how far apart levels of a slide are
LARGEST = 2**16  # a factor beyond is none: tiles are not so large
SAMPLE = 100_000  # tiles on which all candidates are tried; the best is then tried on all
CLEAR = 0.5  # a change that lets more than this share of the tiles meet is named
CHANGES = pa.schema(
    {
        "change": pa.int64(),
        "slide_id": pa.string(),
        "other_id": pa.string(),
        "swapped": pa.bool_(),
        "times": pa.int64(),
        "over": pa.int64(),
        "plus_x": pa.int64(),
        "plus_y": pa.int64(),
    }
)
"""What `featurestore.views.matches.rekeyed_view` reads."""


class Cause(NamedTuple):
    """Why tiles have no embedding, in words, and what to do about it.

    Parameters
    ----------
    change
        The change of keys that most of them want; None where none is clear.
    by_chance
        The slides whose other tiles have the embedding of another place.
    """

    text: str
    fix: str
    change: "Change | None" = None
    by_chance: frozenset[str] = frozenset()


class Keys(NamedTuple):
    """Tables with the key: all tiles, those that are to have an embedding, and the embeddings."""

    tiles: ir.Table
    survivors: ir.Table
    embeddings: ir.Table


Offset = tuple[int, int]
Extents = Mapping[str, Mapping[str, Any]]
Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class Change:
    """A change of keys under which tiles may find their embeddings.

    Parameters
    ----------
    text
        What differs, in words.
    fix
        What to do about it.
    other
        The name among the embeddings of each slide that it is about.
    swapped, times, over, plus
        See `featurestore.views.matches.rekeyed_view`.
    """

    text: str
    fix: str
    other: Mapping[str, str]
    swapped: bool = False
    times: int = 1
    over: int = 1
    plus: Offset = (0, 0)

    def moves(self, slides: Collection[str]) -> bool:
        """Return whether it is of coordinates alone, all of some slides named as they are."""
        stays = (self.swapped, self.times, self.over, self.plus) == (False, 1, 1, (0, 0))
        return not stays and all(self.other.get(slide) == slide for slide in slides)

    def rows(self, number: int, slides: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield its rows, one for each of some slides that it is about."""
        for slide in slides:
            if (other := self.other.get(slide)) is not None:
                values = (number, slide, other, self.swapped, self.times, self.over, *self.plus)
                yield dict(zip(CHANGES.names, values, strict=True))


def guess(keys: Keys, missing: ir.Table) -> Cause:
    """Return why tiles have no embedding, as far as their keys tell, and what to do about it.

    Parameters
    ----------
    keys
        Of which the key alone is read.
    missing
        The survivors, or those of some slides, that have no embedding, at least one.
    """
    with translated():
        spare = engine.keep(keys.embeddings.select(*KEY).anti_join(keys.tiles, list(KEY)))
        lost = engine.keep(missing.select(*KEY))
        try:
            return _guess(keys, lost, spare)
        finally:
            engine.release(spare)
            engine.release(lost)


def _guess(keys: Keys, lost: ir.Table, spare: ir.Table) -> Cause:
    """Do as `guess`, with the embeddings that no tile has."""
    rows = lost.group_by("slide_id").aggregate(missing=lost.count()).to_pyarrow().to_pylist()
    count = {row["slide_id"]: row["missing"] for row in rows}
    offered = spare.select("slide_id").distinct().to_pyarrow()["slide_id"].to_pylist()
    if not offered:
        return Cause("every embedding that there is has its tile", "embed the others as well")
    named, sample, total = _named(count, offered), _sample(count), sum(count.values())
    changes = [*named, *_moves(named, sample, (keys.tiles, spare))]
    matched = _matched(changes, sample, (lost, spare))
    order = sorted(range(len(changes)), key=lambda number: -matched[number])  # the simplest of like
    if order and matched[order[0]] > CLEAR * sum(count[slide] for slide in sample):
        change = changes[order[0]]
        [exact] = _matched([change], list(count), (lost, spare))
        if exact > CLEAR * total:
            return _explained(change, (exact, total), (keys, lost), list(count))
    return Cause(
        _unexplained(lost, spare, count),
        "embed them, or check that both artifacts are of one cohort and spell their keys alike",
    )


def _explained(
    change: Change, counts: tuple[int, int], of: tuple[Keys, ir.Table], slides: list[str]
) -> Cause:
    """Return a change as the cause, and whether what is met all the same is met by chance.

    Where x and y are of another level, a few keys are those of a tile elsewhere. Tiles that meet
    in their own place, of a slide half of which is written otherwise, do not meet changed as well.

    Parameters
    ----------
    counts
        How many tiles would have an embedding, and how many have none.
    of
        The tables, and the tiles without an embedding.
    """
    (exact, total), (keys, lost) = counts, of
    ours = keys.survivors.select(*KEY).semi_join(lost.select("slide_id").distinct(), "slide_id")
    met = int(ours.count().to_pyarrow().as_py()) - total
    if met and change.moves(slides):
        [everywhere] = _matched([change], slides, (ours, keys.embeddings.select(*KEY)))
        if everywhere - exact > CLEAR * met:
            text = f"{change.text}: so {everywhere:,} of {total + met:,} would have one"
            text += f", not {met:,} by chance"
            return Cause(text, change.fix, change, frozenset(slides))
    text = f"{change.text}: so {exact:,} of {total:,} would have one"
    return Cause(text, change.fix, change)


def _sample(count: Mapping[str, int]) -> list[str]:
    """Return slides from all over the cohort with `SAMPLE` tiles together, or all slides."""
    names, total = sorted(count), sum(count.values())
    apart = max(1, total // SAMPLE)
    return names[apart // 2 :: apart] or names


def _matched(
    changes: Sequence[Change], slides: Collection[str], sides: tuple[ir.Table, ir.Table]
) -> list[int]:
    """Return how many embeddings would have a tile of some slides, under each of some changes.

    Parameters
    ----------
    sides
        The tiles without an embedding, and the embeddings of no tile.
    """
    lost, spare = sides
    rows = [row for number, change in enumerate(changes) for row in change.rows(number, slides)]
    table = _registered(lost, pa.Table.from_pylist(rows, CHANGES))
    counted = rekeyed_view(lost, table, spare).to_pyarrow().to_pylist()
    matched = {row["change"]: row["matched"] for row in counted}
    return [matched.get(number, 0) for number in range(len(changes))]


def _registered(beside: ir.Table, table: pa.Table) -> ir.Table:
    return engine.register(beside.get_backend(), ibis.util.gen_name("parquet"), table)


def _named(count: Mapping[str, int], offered: Collection[str]) -> list[Change]:
    """Return the ways to name slides as the embeddings do: as they are, then as they may be."""
    fix = "spell slide_id alike in both artifacts"
    both = set(offered)
    same = Change("", "", {slide: slide for slide in count if slide in both})
    changes = [same] if same.other else []
    for text, other, suffix in spellings(count, offered):
        pair = next(iter(other.items()), None)
        if pair:
            take = f"set data.slide_id_strip={shlex.quote(suffix)}, or {fix}" if suffix else fix
            changes.append(Change(f"{text} ({pair[0]!r}, {pair[1]!r})", take, other))
    return changes


def _moves(
    named: Sequence[Change], sample: Collection[str], sides: tuple[ir.Table, ir.Table]
) -> Iterator[Change]:
    """Yield changes of coordinates, with names as they are and as most slides would have one.

    Parameters
    ----------
    sides
        All tiles, and the embeddings of none.
    """
    bases = [change for change in named if not change.text]
    if renamed := [change for change in named if change.text]:
        asked = set(sample)
        bases.append(max(renamed, key=lambda change: len(asked & change.other.keys())))
    if not bases:
        return
    others = {base.other[slide] for base in bases for slide in sample if slide in base.other}
    ours, theirs = _extents(sides[0], sample), _extents(sides[1], others)
    for base in bases:
        yield from _moved(base, ours, theirs)


def _extents(keys: ir.Table, slides: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the extents of some slides, by name."""
    asked = _registered(keys, pa.table({"slide_id": pa.array(sorted(slides), pa.string())}))
    rows = extent_view(keys.select(*KEY).semi_join(asked, "slide_id")).to_pyarrow().to_pylist()
    return {row["slide_id"]: row for row in rows}


def _moved(base: Change, ours: Extents, theirs: Extents) -> Iterator[Change]:
    """Yield changes of coordinates, besides one of names."""
    also = f"{base.text}; and " if base.text else ""

    def moved(text: str, fix: str, **values: Any) -> Change:
        fix = f"{base.fix}, and {fix}" if base.fix else fix
        return replace(base, text=also + text, fix=fix, **values)

    pairs = [
        (extent, theirs[other])
        for slide, extent in ours.items()
        if (other := base.other.get(slide, "")) in theirs
    ]
    yield moved("x and y are swapped", "swap them in one of the artifacts", swapped=True)
    level = "write x and y of both in pixels of one level"
    for times in dict.fromkeys([*LEVELS, *_ratios(pairs)]):
        text = f"x and y of the tiles are {times} times those of the embeddings"
        yield moved(text, level, over=times)
    for times in dict.fromkeys([*LEVELS, *_ratios([(b, a) for a, b in pairs])]):
        text = f"x and y of the embeddings are {times} times those of the tiles"
        yield moved(text, level, times=times)
    fix = "write the same corner of a tile in both"
    half = _half(pairs)
    for plus in _offsets(pairs, half):
        is_half = all(abs(part) in (0, middle) for part, middle in zip(plus, half, strict=True))
        text = f"x, y of the embeddings are those of the tiles plus {plus[0]}, {plus[1]}"
        yield moved(text + (", half a tile" if is_half else ""), fix, plus=plus)


def _ratios(pairs: Pairs) -> list[int]:
    """Return the most frequent whole ratio of the distances of tiles."""
    ratios = Counter(
        one["step_x"] // other["step_x"]
        for one, other in pairs
        if one["step_x"] and other["step_x"] and one["step_x"] % other["step_x"] == 0
    )
    return [ratio for ratio, _ in ratios.most_common(1) if 1 < ratio <= LARGEST]


def _half(pairs: Pairs) -> Offset:
    """Return half the most frequent distance of tiles, across and down; 0 where there is none."""
    x, y = (
        Counter(ours[name] or 0 for ours, _ in pairs).most_common(1)
        for name in ("step_x", "step_y")
    )
    return (x[0][0] // 2, y[0][0] // 2) if pairs else (0, 0)


def _offsets(pairs: Pairs, half: Offset) -> Iterator[Offset]:
    """Yield the offsets of half a tile, then those that are most frequent at a slide's ends."""
    halves = [(x * half[0], y * half[1]) for x in (1, -1, 0) for y in (1, -1, 0)]
    low = Counter(_first(ours, theirs) for ours, theirs in pairs)
    high = Counter(_first(ours, theirs, "max") for ours, theirs in pairs)
    ends = [offset for counts in (low, high) for offset, _ in counts.most_common(1)]
    yield from (offset for offset in dict.fromkeys([*halves, *ends]) if offset != (0, 0))


def _first(ours: Mapping[str, Any], theirs: Mapping[str, Any], end: str = "min") -> Offset:
    return theirs[f"{end}_x"] - ours[f"{end}_x"], theirs[f"{end}_y"] - ours[f"{end}_y"]


def _unexplained(lost: ir.Table, spare: ir.Table, count: Mapping[str, int]) -> str:
    """Return the first keys of both sides, and how many slides both have."""
    known = lost.select("slide_id").distinct().semi_join(spare, "slide_id")
    shared = known.count().to_pyarrow().as_py()
    tile, embedding = (
        side.order_by(list(KEY)).limit(1).to_pyarrow().to_pylist()[0] for side in (lost, spare)
    )
    return (
        f"{shared:,} of these {len(count):,} slides have embeddings of no tile; the first tile "
        f"without one at {key_text(tile)}; the first embedding of no tile at {key_text(embedding)}"
    )
