"""What a run records of its inputs and of a split's predictions."""

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from featurestore import figures
from featurestore.snapshot import Snapshot
from featurestore.spec import TileSet
from featurestore.store import FeatureStore
from featurestore.tables import print_funnel
from train import config, metrics
from train.data import has_labels, predictions, slide_numbers, write_parquet
from train.figures import confusion_png
from train.metrics import Counts
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
    for snapshot in snapshots:
        session.console.print(f"snapshot: {snapshot.folder.name}")
        tracker.dataset("snapshot", str(snapshot.folder), snapshot.digest, context=mode)
    for snapshot in snapshots[:1]:
        cohort = "test_tiles" if mode == "test" else "tiles"
        funnel = snapshot.manifest["cohorts"][cohort]["funnel"]
        print_funnel(funnel, session.console)
        tracker.metrics({f"funnel/{row['reason']}": row["tiles"] for row in funnel})
        tracker.table(columns(funnel), "funnel.json")
        if mode in ("fit", "validate"):
            record_folds(session, snapshot)
    for name, (uri, digest) in store.sources().items():
        tracker.dataset(name, uri, digest, context=mode)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into columns."""
    return {key: [row[key] for row in rows] for key in rows[0]}


def record_folds(session: Session, snapshot: Snapshot) -> None:
    """Print and record the shared slides, the guard's proof, the labels per fold, the folds."""
    tracker, fold = session.tracker, session.config.fold
    folds = fold if isinstance(fold, list) else snapshot.manifest["folds"]
    for number in [fold] if isinstance(fold, int) else folds:
        shared = snapshot.shared(number)
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
    for picture in figures.draw(snapshot.fates(), snapshot.classes, session.folder / "pictures"):
        tracker.file(picture, "pictures")
    if session.config.tracking.enabled and (uri := snapshot.keep_folds()):
        tracker.params({"folds_artifact": uri})


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
    if not has_labels(tiles.keys):
        session.console.print(f"{name}: {len(table):,} tiles predicted, not all have labels")
        return
    confusion = cube.sum(axis=0)
    slides = metrics.slide_accuracy(cube, slide_numbers(tiles.keys)[1])
    scores = metrics.confusion_metrics(confusion, classes)
    scores |= metrics.slide_summary(slides["accuracy"])
    session.tracker.metrics({f"best/{name}/loss": loss, **spelled(scores, f"best/{name}")})
    session.tracker.table(slides, "slides.json")
    picture = confusion_png(session.folder / "confusion.png", confusion, classes, name)
    session.tracker.file(picture)
    print_scores(session, name, scores, metrics.absent_classes(confusion, classes))


def print_scores(session: Session, name: str, scores: dict[str, float], absent: list[str]) -> None:
    """Print the figures that people compare runs by."""
    table = Table(title=name, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for key, value in scores.items():
        if "/" not in key or key.startswith("slide_accuracy"):
            table.add_row(key, f"{value:.4f}")
    session.console.print(table)
    if absent:
        session.console.print(f"left out of macro means, being absent: {', '.join(absent)}")
