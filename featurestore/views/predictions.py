"""What runs predict, beside what is true: one row per run and tile."""

from collections.abc import Iterable
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from featurestore.views.folds import KEY

PROBABILITY = "prob_"  # begins the column of a class


@dataclass(frozen=True)
class RunPredictions:
    """Predictions that a run has written.

    Parameters
    ----------
    run
        Its name.
    part
        ``held_out`` or ``out_of_fold``.
    table
        ``slide_id, x, y, target, pred, prob_<class>``, the classes in the order of their indices.
    """

    run: str
    part: str
    table: ir.Table


def prediction_view(runs: Iterable[RunPredictions]) -> ir.Table:
    """Bring the predictions of runs together.

    Returns
    -------
    ir.Table
        ``run, part, slide_id, x, y, label, predicted, probability, label_probability`` and
        ``prob_<class>`` of every class that one of the runs knows. Without a label, ``label`` and
        ``label_probability`` are null.
    """
    runs = list(runs)
    every = dict.fromkeys(column for one in runs for column in _classes(one.table))
    return ibis.union(*(_named(one, list(every)) for one in runs))


def error_view(predictions: ir.Table) -> ir.Table:
    """Return the predictions that are not the label, of tiles that have one."""
    return predictions.filter(
        predictions.label.notnull() & (predictions.label != predictions.predicted)
    )


def _classes(table: ir.Table) -> list[str]:
    return [name for name in table.columns if name.startswith(PROBABILITY)]


def _named(one: RunPredictions, every: list[str]) -> ir.Table:
    table, columns = one.table, _classes(one.table)
    names = ibis.array([name.removeprefix(PROBABILITY) for name in columns])
    shares = ibis.array([table[name].cast("float64") for name in columns])
    target, pred = (table[name].cast("int32") for name in ("target", "pred"))
    known = target.notnull()  # no list is asked for an unknown place
    absent = ibis.null("float64")
    return table.select(
        ibis.literal(one.run, "string").name("run"),
        ibis.literal(one.part, "string").name("part"),
        *KEY,
        label=ibis.ifelse(known, names[target.fill_null(0)], ibis.null("string")),
        predicted=names[pred],
        probability=shares[pred],
        label_probability=ibis.ifelse(known, shares[target.fill_null(0)], absent),
        **{name: table[name].cast("float64") if name in columns else absent for name in every},
    )


def doubt_view(predictions: ir.Table) -> ir.Table:
    """Return the tiles whose label is not what is predicted, the least probable label first.

    A label is as doubtful as its probability by a model that has not seen the tile is small: what
    was predicted out of fold counts where there is any, else what was held out.

    Returns
    -------
    ir.Table
        ``rank, slide_id, x, y, label, predicted, label_probability, probability``.
    """
    doubted = error_view(predictions)
    is_out_of_fold = doubted.part == "out_of_fold"
    within = ibis.window()
    part = doubted.mutate(has_fold=is_out_of_fold.any().over(within))
    chosen = part.filter((part.part == "out_of_fold") | ~part.has_fold)
    order = [chosen.label_probability, ibis.desc(chosen.probability), *KEY]
    rank = ibis.row_number().over(ibis.window(order_by=order)) + 1
    columns = ("label", "predicted", "label_probability", "probability")
    return chosen.select(rank.cast("int64").name("rank"), *KEY, *columns).order_by("rank")
