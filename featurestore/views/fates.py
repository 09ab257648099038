"""The fate of each tile, and the funnel that counts the fates."""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from featurestore.spec.rules import LabelRules
from featurestore.views.folds import KEY, RARE
from featurestore.views.joins import look_up, unused
from featurestore.views.thresholds import REASONS, possible

NO_EMBEDDING = "no_embedding"
FATES = (*REASONS, RARE, NO_EMBEDDING)


def fate_view(tiles: ir.Table, embeddings: ir.Table) -> ir.Table:
    """Give the last reason: a survivor whose key has no embedding is dropped by `NO_EMBEDDING`.

    Parameters
    ----------
    tiles
        A threshold or fold view.
    embeddings
        Any table with the key; its embedding column is not read.
    """
    embedded = unused(tiles, "embedded")
    keys = embeddings.select(*KEY, **{embedded: ibis.literal(True)})
    joined = look_up(tiles, keys, KEY, embedded)
    missing = joined.dropped_by.isnull() & joined[embedded].isnull()
    return joined.mutate(dropped_by=ibis.ifelse(missing, NO_EMBEDDING, joined.dropped_by)).select(
        *tiles.columns
    )


def distribution_view(fates: ir.Table) -> ir.Table:
    """Count the kept tiles: ``fold`` (where there are folds), ``label, tiles, slides``."""
    kept = fates.filter(fates.dropped_by.isnull())
    by = [name for name in ("fold", "label") if name in fates.columns]
    counts = kept.group_by(by).aggregate(tiles=kept.count(), slides=kept.slide_id.nunique())
    return counts.order_by(by)


def possible_fates(rules: LabelRules) -> tuple[str, ...]:
    """Return the reasons that a funnel under some rules tells of, in their order."""
    return (*possible(rules), *(reason for reason in FATES if reason not in REASONS))


def funnel_view(fates: ir.Table, reasons: Sequence[str] = FATES) -> ir.Table:
    """Count the fates: ``step, reason, tiles``, one row a reason, from ``input`` to ``kept``.

    ``input`` equals ``kept`` and the sum over the reasons.
    """
    # Not null: where nothing is true, Spark's conditional count of nulls is null instead of 0.
    dropped_by = fates.dropped_by.fill_null("")
    # Counts, not sums of booleans: DuckDB's sums are 128 bits wide and reach clients as decimals.
    counts = fates.aggregate(
        [
            fates.count().name("input"),
            *(fates.count(where=dropped_by == reason).name(reason) for reason in reasons),
            fates.count(where=dropped_by == "").name("kept"),
        ]
    )
    rows = [
        counts.select(
            ibis.literal(step, "int64").name("step"),
            ibis.literal(reason, "string").name("reason"),
            counts[reason].name("tiles"),
        )
        for step, reason in enumerate(counts.columns)
    ]
    return ibis.union(*rows).order_by("step")
