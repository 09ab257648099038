"""What a run records of its inputs and of a split's predictions."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.table import Table

from featurestore import figures
from featurestore.snapshot import Snapshot
from featurestore.spec import TileSet
from featurestore.store import FeatureStore
from featurestore.tables import print_funnel
from train import account, config, evidence, metrics, provenance
from train.calibration import risk_coverage
from train.data import has_labels, predictions, slide_numbers, write_parquet
from train.figures import (
    classes_png,
    confusion_png,
    curves_png,
    reliability_png,
    risk_png,
    slides_png,
)
from train.metrics import Counts
from train.page import columns
from train.session import Session
from train.tracking import spell, versions

SHARED_NAMES = {"slide_id": "slides", "patient_id": "patients"}


def record_inputs(session: Session, store: FeatureStore, snapshots: list[Snapshot]) -> None:
    """Print and record what goes into a run: settings, versions, funnel, leaks, artifacts.

    Of several variants of the rules, the funnel and the folds of the first.
    """
    tracker, mode = session.tracker, session.config.mode
    settings = config.flat(session.config)
    tracker.params({".".join(map(spell, path)): value for path, value in settings.items()})
    tracker.text(config.text(session.config), "config.yaml")
    tracker.text("".join(f"{name}=={v}\n" for name, v in versions().items()), "versions.txt")
    tracker.params({"command": session.command})
    for snapshot in snapshots:
        session.console.print(f"snapshot: {snapshot.folder.name}")
        tracker.dataset("snapshot", str(snapshot.folder), snapshot.digest, context=mode)
    for snapshot in snapshots[:1]:
        cohort = "test_tiles" if mode == "test" else "tiles"
        funnel = snapshot.manifest["cohorts"][cohort]["funnel"]
        print_funnel(funnel, session.console)
        tracker.metrics({f"funnel/{row['reason']}": row["tiles"] for row in funnel})
        tracker.table(columns(funnel), "funnel.json")
        provenance.funnel(session.page, funnel, len(snapshots))
        if mode in ("fit", "validate"):
            record_folds(session, snapshot)
        else:
            provenance.leakage(session.page, snapshot.findings, session.config)
    for name, (uri, digest) in store.sources().items():
        tracker.dataset(name, uri, digest, context=mode)
    provenance.inputs(session.page, snapshots, store.sources())


def record_folds(session: Session, snapshot: Snapshot) -> None:
    """Print and record the shared slides, the guard's proof, the labels per fold, the folds."""
    tracker, fold = session.tracker, session.config.fold
    folds = fold if isinstance(fold, list) else snapshot.manifest["folds"]
    rows = []
    for number in [fold] if isinstance(fold, int) else folds:
        shared = snapshot.shared(number)
        rows.append({"fold": number, **shared})
        said = ", ".join(f"{count} shared {SHARED_NAMES.get(n, n)}" for n, count in shared.items())
        session.console.print(
            f"fold {number} ({session.config.kfold_strategy}): {said} in training and validation"
        )
        named = {f"leakage/shared_{SHARED_NAMES.get(n, n)}": c for n, c in shared.items()}
        tracker.metrics(named, step=None if isinstance(fold, int) else number)
    for kind, value in snapshot.manifest["imbalance"].items():
        session.console.print(f"imbalance of the folds, {kind}: {value:.3f}")
        tracker.metrics({f"folds/imbalance_{kind}": value})
    tracker.table(columns([f.as_dict() for f in snapshot.findings]), "leakage.json")
    tracker.table(columns(snapshot.manifest["labels"]), "label_distribution.json")
    pictures = figures.draw(snapshot.fates(), snapshot.classes, session.folder / "pictures")
    for picture in pictures:
        tracker.file(picture, "pictures")
    uri = snapshot.keep_folds() if session.config.tracking.enabled else None
    if uri:
        tracker.params({"folds_artifact": uri})
    provenance.folds(session.page, session.config, snapshot, rows, pictures, uri)


def spelled(scores: dict[str, float], prefix: str) -> dict[str, float]:
    """Prefix the names of metrics, the class in them spelled as MLflow takes it."""
    result = {}
    for name, value in scores.items():
        kind, _, of = name.partition("/")
        result[f"{prefix}/{kind}" + (f"/{spell(of)}" if of else "")] = value
    return result


class History:
    """Records each epoch: numbers at once, the confusion matrices as PNG and as one table."""

    def __init__(self, session: Session, classes: list[str]) -> None:
        self.session, self.classes = session, classes
        self.rows: list[tuple[int, str, str, int]] = []  # epoch, true, predicted, tiles

    def epoch(self, number: int, losses: dict[str, float], confusion: Counts) -> None:
        """Record one epoch (on the first process)."""
        if not self.session.tracker.records:
            return
        tracker, folder = self.session.tracker, self.session.folder
        scores = metrics.confusion_metrics(confusion, self.classes)
        tracker.metrics({**losses, **spelled(scores, "validation")}, step=number)
        picture = folder / "confusion" / f"epoch_{number:04d}.png"
        tracker.file(
            confusion_png(picture, confusion, self.classes, f"validation, epoch {number}"),
            "confusion",
        )
        for true, predicted in np.argwhere(confusion):
            tiles = int(confusion[true, predicted])
            self.rows.append((number, self.classes[true], self.classes[predicted], tiles))

    def close(self) -> None:
        """Record the table: one row per epoch and cell that is not zero."""
        names = ("epoch", "true", "predicted", "tiles")
        columns = zip(*self.rows, strict=True) if self.rows else ((), (), (), ())
        table = {name: list(values) for name, values in zip(names, columns, strict=True)}
        self.session.tracker.table(table, "confusion.json")


def record_split(
    session: Session,
    name: str,
    tiles: TileSet,
    order: npt.NDArray[np.int64],
    probabilities: Any,
    cube: Counts,
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
    cube
        Counts, shape (slides, K, K).
    """
    session.folder.mkdir(parents=True, exist_ok=True)
    table = predictions(tiles.keys, order, probabilities, classes)
    session.tracker.file(write_parquet(session.folder / "predictions.parquet", table))
    review(session, table)
    if not has_labels(tiles.keys):
        session.console.print(f"{name}: {len(table):,} tiles predicted, not all have labels")
        return
    confusion = cube.sum(axis=0)
    numbers, names = slide_numbers(tiles.keys)
    slides = metrics.slide_accuracy(cube, names)
    scores = metrics.confusion_metrics(confusion, classes)
    scores |= metrics.slide_summary(slides["accuracy"])
    session.tracker.metrics({f"best/{name}/loss": loss, **spelled(scores, f"best/{name}")})
    session.tracker.table(slides, "slides.json")
    shares = probabilities.numpy()[np.argsort(order)]
    rows = np.sort(order)
    target = tiles.keys["target"].to_numpy()[rows]
    found = evidence.figures(target, shares, numbers[rows], classes, seed=session.config.seed)
    record_evidence(session, name, found)
    account.figures(session.page, name, found, table, classes)
    account.failures(session.page, name, table, classes)
    session.tracker.table(evidence.confusions(confusion.astype(float), classes), "confusions.json")
    draw(session, name, target, shares, found, slides, confusion, classes)
    print_scores(session, name, scores, found, metrics.absent_classes(confusion, classes))


def review(session: Session, table: pa.Table) -> None:
    """Write the tiles whose prediction is less sure than ``abstain_below``, the least first."""
    least = session.config.abstain_below
    if least is None:
        return
    shares = [name for name in table.column_names if name.startswith("prob_")]
    sure = np.max([table[name].to_numpy() for name in shares], axis=0)
    order = np.argsort(sure, kind="stable")
    doubtful = order[: int((sure < least).sum())]
    chosen = table.take(pa.array(doubtful)).append_column("confidence", pa.array(sure[doubtful]))
    session.tracker.file(write_parquet(session.folder / "review.parquet", chosen))
    session.tracker.metrics({"review/tiles": len(chosen)})
    session.console.print(
        f"review.parquet: {len(chosen):,} of {len(table):,} tiles are less sure than {least}"
    )


def record_evidence(session: Session, name: str, found: dict[str, evidence.Figure]) -> None:
    """Record every figure and its interval, as metrics and as one table."""
    values = {}
    for key, figure in found.items():
        kind, _, of = key.partition("/")
        ends = {"": figure.value, "_low": figure.low, "_high": figure.high}
        for end, value in ends.items():
            if np.isfinite(value):
                values[f"{kind}{end}" + (f"/{of}" if of else "")] = value
    session.tracker.metrics(spelled(values, f"best/{name}"))
    table: dict[str, list[Any]] = {"metric": list(found)}
    for field in ("value", "low", "high"):
        table[field] = [getattr(figure, field) for figure in found.values()]
    session.tracker.table(table, "evidence.json")


def draw(
    session: Session,
    name: str,
    target: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float32],
    found: dict[str, evidence.Figure],
    slides: dict[str, list[Any]],
    confusion: Counts,
    classes: list[str],
) -> None:
    """Draw and record what the figures mean, if anybody can see it."""
    if not session.tracker.records and session.config.output is None:
        return
    folder, error = session.folder, found["calibration_error"].value
    f1 = [found[f"f1/{own}"] for own in classes]
    bins = evidence.sums(target, shares, np.zeros_like(target)).bins[0]
    whole = confusion_png(folder / "confusion.png", confusion, classes, name)
    session.tracker.file(whole)
    account.picture(session.page, whole)
    for picture in (
        reliability_png(folder / "reliability.png", bins, error),
        curves_png(folder / "curves.png", target, shares, classes),
        classes_png(folder / "classes.png", classes, [(f.value, f.low, f.high) for f in f1]),
        slides_png(folder / "slides.png", slides["accuracy"], slides["tiles"]),
        risk_png(folder / "risk_coverage.png", risk_coverage(shares, target)),
    ):
        session.tracker.file(picture, "evidence")
        account.picture(session.page, picture)


def print_scores(
    session: Session,
    name: str,
    scores: dict[str, float],
    found: dict[str, evidence.Figure],
    absent: list[str],
) -> None:
    """Print the figures that people compare runs by."""
    table = Table(title=name, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % over slides", justify="right")
    shown: dict[str, tuple[float, evidence.Figure | None]]
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
