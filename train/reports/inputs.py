"""What a run reports of its data."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurestore.console.tables import print_funnel
from featurestore.printing import Console
from featurestore.snapshots import pictures
from featurestore.snapshots.leakage import Finding
from featurestore.snapshots.snapshot import Snapshot
from train.config import text
from train.predictions.table import plural
from train.reports import training
from train.reports.html import Headline, Page, Picture, Table, Text, columns
from train.runtime.inputs import Inputs
from train.runtime.run import Run
from train.runtime.snapshots import inputs_of
from train.runtime.train_test_overlap import TrainTestOverlap
from train.tracking.runs import CONTENT, FOLDS, versions
from train.tracking.tracker import NullTracker, Tracker

PICTURES = {
    "coverages": "Coverage by class",
    "slides": "Slides",
    "thresholds": "Tiles that a threshold keeps",
}
"""Of the cohort, those that no table says as well."""


def record(run: Run, page: Page, opened: Inputs) -> None:
    """Record what goes into a run; see `train.reports.logger.RunLogger.inputs`."""
    config, mode, snapshots = run.config, run.config.mode, opened.snapshots
    tracker: Tracker = NullTracker() if config.resume else run.tracker
    # What encoders have in common was printed of the run above.
    run = replace(run, console=Console(quiet=True)) if run.is_child else run
    tracker.params({**training.configured(config), "command": run.command})
    tracker.text(text.text(config), "config.yaml")
    tracker.text("".join(f"{name}=={v}\n" for name, v in versions().items()), "versions.txt")
    for snapshot in snapshots:
        run.console.print(f"snapshot: {snapshot.folder.name}")
        digests = {"sha256": snapshot.digest, CONTENT: snapshot.content}
        tracker.dataset("snapshot", str(snapshot.folder), digests, context=mode)
    for snapshot in snapshots[:1]:
        cohort = "test_tiles" if mode == "test" else "tiles"
        rows = snapshot.manifest["cohorts"][cohort]["funnel"]
        print_funnel(rows, run.console)
        tracker.metrics({f"funnel/{row['reason']}": row["tiles"] for row in rows})
        tracker.table(columns(rows), "funnel.json")
        add_funnel(page, rows, len(snapshots))
        if mode in ("fit", "validate"):
            record_folds(run, tracker, page, snapshot)
        else:
            add_test_leakage(page, snapshot.findings, opened.overlap)
    record_overlap(run, tracker, opened.overlap)
    for number, snapshot in enumerate(snapshots[1:], 2):
        keep_folds(run, tracker, snapshot, f"{FOLDS}_{number}")
    # A prediction reads its embeddings once: it does not read them again to hash them.
    unread = ("embeddings", "test_embeddings") if mode == "predict" else ()
    artifacts = inputs_of(config, opened.store, snapshots, unread)
    for name, (uri, digest) in artifacts.items():
        kind = "stamp" if name in unread else "sha256"
        tracker.dataset(name, uri, {kind: digest}, context=mode)
    add_sources(page, snapshots, artifacts)


def add_sources(
    page: Page, snapshots: Sequence[Snapshot], inputs: Mapping[str, tuple[str, str]]
) -> None:
    """Add where the data come from, and their digests."""
    places = dict(inputs)
    numbered = len(snapshots) > 1
    for number, snapshot in enumerate(snapshots, 1):
        name = f"snapshot {number}" if numbered else "snapshot"
        places[name] = (str(snapshot.folder), snapshot.digest)
        places[f"{name}, its rows"] = ("", snapshot.content)
    page.add("data", Table("Inputs", {
        "input": list(places),
        "place": [place for place, _ in places.values()],
        "SHA-256": [digest for _, digest in places.values()],
    }, "A snapshot's digest is that of artifacts, rules and the code of the views.",
        folded=True))  # fmt: skip


def add_funnel(page: Page, rows: list[dict[str, Any]], variants: int = 1) -> None:
    """Add how many tiles there were, and why some were dropped.

    Parameters
    ----------
    variants
        Of the rules; the rows are those of the first.
    """
    number = [row["tiles"] for row in rows]
    all_tiles = max(number[0], 1)
    note = "" if variants == 1 else f"Under the first of {variants} variants of the rules."
    page.add("data", Table("Fate of the tiles", {
        "first reason": [row["reason"] for row in rows], "tiles": number,
        "share": [f"{tiles / all_tiles:.1%}" for tiles in number],
    }, note))  # fmt: skip
    share = f"of {number[0]:,}, {number[-1] / all_tiles:.1%}"
    of_first = f"; first of {variants} variants of the rules" if variants > 1 else ""
    page.headlines.append(Headline("Tiles kept", f"{number[-1]:,}", share + of_first))


def add_folds(page: Page, snapshot: Snapshot, drawn: Sequence[Path]) -> None:
    """Add how many tiles of each class a fold has.

    Parameters
    ----------
    drawn
        Of the cohort.
    """
    labels = snapshot.manifest["labels"]
    numbers: list[Any] = list(dict.fromkeys(row["fold"] for row in labels))
    tiles = {(row["label"], row["fold"]): row["tiles"] for row in labels}
    names = list(dict.fromkeys(row["label"] for row in labels))
    page.add("data", Table("Tiles by class and fold", {
        "class": names,
        **{f"fold {n}": [tiles.get((name, n), 0) for name in names] for n in numbers},
    }, folded=True))  # fmt: skip
    page.add("data", *(
        Picture(PICTURES[file.stem], file.read_bytes())
        for file in drawn if file.stem in PICTURES
    ))  # fmt: skip


def add_test_leakage(
    page: Page, findings: Sequence[Finding], overlap: TrainTestOverlap | None
) -> None:
    """Add which test tiles the model was trained on; of today's training tiles if it is not known.

    Parameters
    ----------
    findings
        Of the snapshot of the test tiles.
    """
    if overlap and overlap.unknown:
        page.add("data", Text(
            f"Whether test tiles were trained on is not known: {overlap.unknown}.", doubtful=True
        ))  # fmt: skip
    today = [finding for finding in findings if finding.concerns_test]
    if overlap and overlap.findings:
        add_leakage(page, overlap.findings, overlap.unknown)
    else:
        add_leakage(page, today, overlap.unknown if overlap else "")


def record_overlap(run: Run, tracker: Tracker, overlap: TrainTestOverlap | None) -> None:
    """Record how many test slides, patients and tiles were trained on, and by what it is known."""
    if overlap is None:
        return
    tracker.metrics(overlap.metrics)
    trained_on = overlap.trained_on or f"not known: {overlap.unknown}"
    tracker.params({"trained_on": trained_on})
    if run.config.mode == "test":
        tracker.table(columns([finding.as_dict() for finding in overlap.findings]), "leakage.json")
        run.console.print(f"trained on: {trained_on}", soft_wrap=True)


def add_leakage(page: Page, findings: Sequence[Finding], unknown: str = "") -> None:
    """Add what the checks for leakage found, as a headline and as a table.

    Parameters
    ----------
    unknown
        What was not looked for, and why.
    """
    leaks = [finding for finding in findings if finding.count]
    if leaks:
        counts = "; ".join(f"{leak.count:,} {leak.check}" for leak in leaks)
        page.add("data", Text(
            f"Leak: {counts}. Figures on slides that were trained on look better than on new ones.",
            doubtful=True,
        ))  # fmt: skip
        headline = Headline("Leakage", "found", counts, doubtful=True)
    elif unknown:
        headline = Headline("Leakage", "not known", unknown, doubtful=True)
    elif findings:
        headline = Headline("Leakage", "none found", f"{len(findings)} checks")
    else:
        headline = Headline("Leakage", "not checked", "no folds to compare with", doubtful=True)
    page.headlines.append(headline)
    if findings:
        page.add("data", Table("Leakage", {
            "must not be": [finding.check for finding in findings],
            "promised": [finding.is_error for finding in findings],
            "found": [finding.count for finding in findings],
            "the first": [finding.first for finding in findings],
        }, folded=True))  # fmt: skip


def keep_folds(run: Run, tracker: Tracker, snapshot: Snapshot, name: str) -> str | None:
    """Log the folds that were assigned, for a replay to read; return their URI.

    Parameters
    ----------
    name
        Of the parameter that tells the URI.
    """
    uri = snapshot.keep_folds() if run.config.tracking.enabled else None
    if uri:
        tracker.params({name: uri})
    return uri


def cohort_pictures(run: Run, snapshot: Snapshot) -> list[Path]:
    """Return pictures of a cohort, drawn once for its snapshot, if anybody can see them.

    Of several encoders they are those of the run above.
    """
    folder = (run.folder.parent if run.is_child else run.folder) / "pictures"
    if not run.is_child and run.visible:
        folder.mkdir(parents=True, exist_ok=True)
        for file in pictures.drawn(snapshot, lambda drawn: _draw(snapshot, drawn)):
            shutil.copyfile(file, folder / file.name)
    return sorted(folder.glob("*.png"))


def _draw(snapshot: Snapshot, folder: Path) -> None:
    from featurestore.console import plots  # half a second of matplotlib, for who draws

    plots.draw(snapshot.fates(), snapshot.classes, folder)


def record_folds(run: Run, tracker: Tracker, page: Page, snapshot: Snapshot) -> None:
    """Record the shared slides, the checks for leakage, the labels per fold, the folds.

    Parameters
    ----------
    tracker
        One that records nothing, where a resumed run has recorded them.
    """
    fold = run.config.fold
    numbers = fold if isinstance(fold, list) else snapshot.manifest["folds"]
    rows = []
    for number in [fold] if isinstance(fold, int) else numbers:
        shared = {plural(name): count for name, count in snapshot.shared(number).items()}
        rows.append({"fold": number, **snapshot.shared(number)})
        counts = ", ".join(f"{count} shared {name}" for name, count in shared.items())
        strategy = run.config.kfold_strategy
        run.console.print(f"fold {number} ({strategy}): {counts} in training and validation")
        metrics = {f"leakage/shared_{name}": count for name, count in shared.items()}
        tracker.metrics(metrics, step=None if isinstance(fold, int) else number)
    for kind, value in snapshot.manifest["imbalance"].items():
        run.console.print(f"imbalance of the folds, {kind}: {value:.3f}")
        tracker.metrics({f"folds/imbalance_{kind}": value})
    if snapshot.lineage:
        run.console.print(f"folds: {snapshot.lineage}", soft_wrap=True)
    tracker.table(columns([finding.as_dict() for finding in snapshot.findings]), "leakage.json")
    tracker.table(columns(snapshot.manifest["labels"]), "label_distribution.json")
    drawn = cohort_pictures(run, snapshot)
    for picture in drawn:
        tracker.file(picture, "pictures")
    uri = keep_folds(run, tracker, snapshot, FOLDS)
    brought = f"Assigned: {uri or snapshot.folder}; {snapshot.lineage}." if snapshot.lineage else (
        "By a hash of the key." if run.config.fold_rule == "hash" else "As the tiles bring them."
    )  # fmt: skip
    add_leakage(page, snapshot.findings)
    page.add("data", Table("On both sides of the split", columns(rows), brought, folded=True))
    add_folds(page, snapshot, drawn)
