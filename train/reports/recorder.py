"""What a run records of its inputs and of a split's predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.table import Table

from featurestore.console.tables import print_table
from featurestore.snapshots.tile_set import TileSet
from train.evaluation import confusion as evaluation_confusion
from train.evaluation import estimates, groups
from train.evaluation import metrics as evaluation_metrics
from train.evaluation.calibration import risk_coverage
from train.evaluation.confusion import Counts
from train.evaluation.groups import Group
from train.overlays import record
from train.plots.evaluation import (
    classes_png,
    confusion_png,
    curves_png,
    groups_png,
    reliability_png,
    risk_png,
    slides_png,
)
from train.predictions.files import write_json, write_parquet
from train.predictions.table import (
    encode_clusters,
    encode_slides,
    has_labels,
    lone_slides,
    plural,
    predictions,
)
from train.reports import results
from train.runtime.run import Run
from train.tracking.names import encode_name


def encode_metrics(scores: dict[str, float], prefix: str) -> dict[str, float]:
    """Prefix the names of metrics, the class in them spelled as MLflow takes it."""
    result = {}
    for name, value in scores.items():
        kind, _, of = name.partition("/")
        result[f"{prefix}/{kind}" + (f"/{encode_name(of)}" if of else "")] = value
    return result


def record_split(
    session: Run,
    name: str,
    tiles: TileSet,
    order: npt.NDArray[np.int64],
    probabilities: Any,
    classes: list[str],
    loss: float,
) -> None:
    """Write and record predictions and, where there are labels, how good they are.

    Parameters
    ----------
    name
        ``validation``, ``test`` or ``predict``.
    order
        Rows of ``tiles.keys``, by position.
    probabilities
        Shape (rows, K), by position.
    """
    session.folder.mkdir(parents=True, exist_ok=True)
    table = predictions(tiles.keys, order, probabilities, classes)
    session.tracker.file(write_parquet(session.folder / "predictions.parquet", table))
    abstentions(session, table)
    record.record(session, table)
    if has_labels(table):
        session.tracker.metrics({f"best/{name}/loss": loss})
        record_evidence(session, name, table, classes)
    else:
        session.console.print(f"{name}: {len(table):,} tiles predicted, not all have labels")


def record_evidence(
    session: Run, name: str, table: pa.Table, classes: list[str], prefix: str = ""
) -> None:
    """Record how good predictions are: figures with intervals, tables, pictures.

    Parameters
    ----------
    name
        What they are of: metrics are named ``best/<name>/...``.
    table
        Predictions (`train.predictions.table.predictions`), every tile with its label.
    prefix
        Begins the names of files.
    """
    config, seed, tracker = session.config.evidence, session.config.seed, session.tracker
    target, guess = table["target"].to_numpy(), table["pred"].to_numpy()
    shares = np.stack([table[f"prob_{own}"].to_numpy() for own in classes], axis=1)
    slide, names = encode_slides(table)
    unit, _ = encode_clusters(table, config.resample)
    if lone := lone_slides(table, config.resample):
        session.console.print(
            f"{name}: {lone:,} slides have no {config.resample}; each is resampled by itself"
        )
    cube = evaluation_metrics.cube(target, guess, slide, len(classes))
    confusion, slides = cube.sum(axis=0), evaluation_confusion.slide_accuracy(cube, names)
    scores = evaluation_confusion.confusion_metrics(confusion, classes)
    scores |= evaluation_confusion.slide_summary(slides["accuracy"])
    tracker.metrics(encode_metrics(scores, f"best/{name}"))
    found = estimates.estimate(target, shares, unit, classes, config.ordered, seed)
    record_figures(session, name, found, prefix)
    results.figures(session.page, name, found, table, classes, plural(config.resample))
    confused = evaluation_metrics.cube(target, guess, unit, len(classes))
    most = evaluation_metrics.confusions(confused, classes, seed)
    tracker.table(most, f"{prefix}confusions.json")
    results.failures(session.page, name, table, classes, most, plural(config.resample))
    beside = groups.by_slide(table, config.groups, slides["slide_id"])
    tracker.table({**beside, **slides}, f"{prefix}slides.json")
    draw(session, name, target, shares, found, slides, confusion, classes, prefix)
    print_scores(
        session, name, scores, found, evaluation_confusion.absent_classes(confusion, classes)
    )
    told = groups.by_group(table, config.groups, target, shares, unit, classes, seed)
    record_groups(session, name, told, found, prefix)


def abstentions(session: Run, table: pa.Table, prefix: str = "") -> None:
    """Write the tiles whose prediction is less sure than ``abstain_below``, the least first."""
    least = session.config.abstain_below
    if least is None:
        return
    shares = [name for name in table.column_names if name.startswith("prob_")]
    sure = np.max([table[name].to_numpy() for name in shares], axis=0)
    order = np.argsort(sure, kind="stable")
    doubtful = order[: int((sure < least).sum())]
    chosen = table.take(pa.array(doubtful)).append_column("confidence", pa.array(sure[doubtful]))
    session.tracker.file(write_parquet(session.folder / f"{prefix}review.parquet", chosen))
    session.tracker.metrics({f"{prefix}review/tiles": len(chosen)})
    session.console.print(
        f"{prefix}review.parquet: {len(chosen):,} of {len(table):,} tiles are less sure than "
        f"{least}"
    )


def record_figures(
    session: Run, name: str, found: dict[str, estimates.Estimate], prefix: str
) -> None:
    """Record every figure and its interval, as metrics and as one table."""
    values = {}
    for key, figure in found.items():
        kind, _, of = key.partition("/")
        ends = {"": figure.value, "_low": figure.low, "_high": figure.high}
        for end, value in ends.items():
            if np.isfinite(value):
                values[f"{kind}{end}" + (f"/{of}" if of else "")] = value
    session.tracker.metrics(encode_metrics(values, f"best/{name}"))
    table: dict[str, list[Any]] = {"metric": list(found)}
    for field in ("value", "low", "high"):
        table[field] = [getattr(figure, field) for figure in found.values()]
    session.tracker.table(table, f"{prefix}evidence.json")


def record_groups(
    session: Run,
    name: str,
    told: list[Group],
    overall: dict[str, estimates.Estimate],
    prefix: str,
) -> None:
    """Record groups: all in one table; those that are shown as metrics, pictures, print.

    Parameters
    ----------
    overall
        The figures of all tiles, to compare with.
    """
    if not told:
        return
    tracker, over = session.tracker, plural(session.config.evidence.resample)
    tracker.table(groups.as_table(told), f"{prefix}groups.json")
    write_json(session.folder / f"{prefix}groups.json", groups.as_table(told))
    for column in dict.fromkeys(group.column for group in told):
        own = [group for group in told if group.column == column]
        some = [group for group in own if group.shown]
        tracker.metrics(groups.as_metrics(some, f"best/{name}/group"))
        if tracker.records or session.config.output is not None:
            picture = session.folder / f"{prefix}groups_{encode_name(column)}.png"
            tracker.file(groups_png(picture, column, some, overall, over), "evidence")
            results.picture(session.page, picture)
        title = f"{name} by {column}, the worst first; 95 % over {over}"
        print_table(groups.shown(some), session.console, title)
        results.groups(session.page, title, groups.shown(some))
        if len(own) > len(some):
            session.console.print(
                f"{column} has {len(own):,} values, all in {prefix}groups.json; intervals, metrics "
                f"and picture are of the {len(some)} with the most tiles"
            )


def draw(
    session: Run,
    name: str,
    target: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float32],
    found: dict[str, estimates.Estimate],
    slides: dict[str, list[Any]],
    confusion: Counts,
    classes: list[str],
    prefix: str,
) -> None:
    """Draw and record what the figures mean, if anybody can see it."""
    if not session.tracker.records and session.config.output is None:
        return
    folder, error = session.folder, found["calibration_error"].value
    f1 = [found[f"f1/{own}"] for own in classes]
    bins = evaluation_metrics.unit_sums(target, shares, np.zeros_like(target)).bins[0]
    curve, ends = risk_coverage(shares, target), [(f.value, f.low, f.high) for f in f1]

    def named(picture: str) -> Path:
        return folder / f"{prefix}{picture}.png"

    whole = confusion_png(named("confusion"), confusion, classes, name)
    session.tracker.file(whole)
    results.picture(session.page, whole)
    for picture in (
        reliability_png(named("reliability"), bins, error),
        curves_png(named("curves"), target, shares, classes),
        classes_png(named("classes"), classes, ends, plural(session.config.evidence.resample)),
        slides_png(named("slides"), slides["accuracy"], slides["tiles"]),
        risk_png(named("risk_coverage"), curve),
    ):
        session.tracker.file(picture, "evidence")
        results.picture(session.page, picture)


def print_scores(
    session: Run,
    name: str,
    scores: dict[str, float],
    found: dict[str, estimates.Estimate],
    absent: list[str],
) -> None:
    """Print the figures that people compare runs by."""
    table = Table(title=name, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column(f"95 % over {plural(session.config.evidence.resample)}", justify="right")
    shown: dict[str, tuple[float, estimates.Estimate | None]]
    shown = {key: (value, None) for key, value in scores.items()}
    shown |= {key: (figure.value, figure) for key, figure in found.items()}
    for key, (value, figure) in shown.items():
        if "/" not in key or key.startswith("slide_accuracy"):
            known = figure is not None and np.isfinite(figure.low)
            ends = f"{figure.low:.3f} .. {figure.high:.3f}" if figure and known else ""
            table.add_row(key, f"{value:.4f}", ends)
    session.console.print(table)
    if absent:
        session.console.print(f"left out of macro means, being absent: {', '.join(absent)}")
