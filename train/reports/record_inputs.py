"""What goes into a run, recorded."""

from featurestore.console import plots
from featurestore.console.tables import print_funnel
from featurestore.snapshots.snapshot import Snapshot
from featurestore.store import FeatureStore
from train.config import text
from train.predictions.table import plural
from train.reports import inputs
from train.reports.html import columns
from train.runtime.run import Run
from train.tracking.names import encode_name
from train.tracking.runs import CONTENT, versions


def record_inputs(session: Run, store: FeatureStore, snapshots: list[Snapshot]) -> None:
    """Print and record what goes into a run: settings, versions, funnel, leaks, artifacts.

    Of several variants of the rules, the funnel and the folds of the first.
    """
    tracker, mode = session.tracker, session.config.mode
    settings = text.flat(session.config)
    tracker.params({".".join(map(encode_name, path)): value for path, value in settings.items()})
    tracker.text(text.text(session.config), "config.yaml")
    tracker.text("".join(f"{name}=={v}\n" for name, v in versions().items()), "versions.txt")
    tracker.params({"command": session.command})
    for snapshot in snapshots:
        session.console.print(f"snapshot: {snapshot.folder.name}")
        digests = {"sha256": snapshot.digest, CONTENT: snapshot.content}
        tracker.dataset("snapshot", str(snapshot.folder), digests, context=mode)
    for snapshot in snapshots[:1]:
        cohort = "test_tiles" if mode == "test" else "tiles"
        funnel = snapshot.manifest["cohorts"][cohort]["funnel"]
        print_funnel(funnel, session.console)
        tracker.metrics({f"funnel/{row['reason']}": row["tiles"] for row in funnel})
        tracker.table(columns(funnel), "funnel.json")
        inputs.funnel(session.page, funnel, len(snapshots))
        if mode in ("fit", "validate"):
            record_folds(session, snapshot)
        else:
            inputs.leakage(session.page, snapshot.findings, session.config)
    # A prediction reads its embeddings once: it does not read them again to hash them.
    unread = ("embeddings", "test_embeddings") if mode == "predict" else ()
    sources = store.sources.digests(unread)
    for name, (uri, digest) in sources.items():
        kind = "stamp" if name in unread else "sha256"
        tracker.dataset(name, uri, {kind: digest}, context=mode)
    inputs.inputs(session.page, snapshots, sources)


def record_folds(session: Run, snapshot: Snapshot) -> None:
    """Print and record the shared slides, the guard's proof, the labels per fold, the folds."""
    tracker, fold = session.tracker, session.config.fold
    folds = fold if isinstance(fold, list) else snapshot.manifest["folds"]
    rows = []
    for number in [fold] if isinstance(fold, int) else folds:
        shared = snapshot.shared(number)
        rows.append({"fold": number, **shared})
        said = ", ".join(f"{count} shared {plural(n)}" for n, count in shared.items())
        session.console.print(
            f"fold {number} ({session.config.kfold_strategy}): {said} in training and validation"
        )
        named = {f"leakage/shared_{plural(n)}": c for n, c in shared.items()}
        tracker.metrics(named, step=None if isinstance(fold, int) else number)
    for kind, value in snapshot.manifest["imbalance"].items():
        session.console.print(f"imbalance of the folds, {kind}: {value:.3f}")
        tracker.metrics({f"folds/imbalance_{kind}": value})
    tracker.table(columns([f.as_dict() for f in snapshot.findings]), "leakage.json")
    tracker.table(columns(snapshot.manifest["labels"]), "label_distribution.json")
    pictures = plots.draw(snapshot.fates(), snapshot.classes, session.folder / "pictures")
    for picture in pictures:
        tracker.file(picture, "pictures")
    uri = snapshot.keep_folds() if session.config.tracking.enabled else None
    if uri:
        tracker.params({"folds_artifact": uri})
    inputs.folds(session.page, session.config, snapshot, rows, pictures, uri)
