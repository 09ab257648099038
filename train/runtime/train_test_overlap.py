"""Whether test tiles are among those that a model was trained on, by what is recorded of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import ibis

from featurestore.errors import ArtifactError, FeatureStoreError
from featurestore.io import names
from featurestore.printing import counted
from featurestore.snapshots.collection import opened
from featurestore.snapshots.leakage import Finding
from featurestore.snapshots.snapshot import Snapshot
from featurestore.snapshots.train_test_overlap import (
    TILES_CHECK,
    find_overlap,
    groups_check,
    overlapping_groups,
)
from featurestore.store import FeatureStore
from train.config.load import recorded
from train.config.schema import Config
from train.config.store import open_store
from train.models.checkpoint import TrainedModel
from train.tracking.runs import RunRecord, load_run

SLIDES_CHECK, PATIENTS_CHECK = groups_check("slide_id"), groups_check("patient_id")
METRICS = {
    SLIDES_CHECK: "leakage/trained_slides",
    PATIENTS_CHECK: "leakage/trained_patients",
    TILES_CHECK: "leakage/trained_tiles",
}
"""The metric of each check."""
NOUNS = {SLIDES_CHECK: "slide", PATIENTS_CHECK: "patient", TILES_CHECK: "embedding"}
"""What each check counts."""


@dataclass(frozen=True)
class TrainTestOverlap:
    """What is known of the test tiles that a model was trained on.

    Parameters
    ----------
    trained_on
        What the model was trained on, for people; empty where it is not known.
    findings
        What was looked for, and how much of it there is.
    unknown
        What could not be looked for, and why; empty where all was.
    """

    trained_on: str
    findings: tuple[Finding, ...] = ()
    unknown: str = ""

    @property
    def doubt(self) -> str:
        """Why figures of these tiles are no untouched number; empty where they are one."""
        leaks = [finding for finding in self.findings if finding.count]
        if leaks:
            counts = ", ".join(counted(leak.count, NOUNS[leak.check]) for leak in leaks)
            return f"none: the model was trained on {counts} of the test tiles"
        return f"not known: {self.unknown}" if self.unknown else ""

    @property
    def metrics(self) -> dict[str, float]:
        """The number of test slides, patients and tiles that were trained on, as far as known."""
        return {METRICS[finding.check]: finding.count for finding in self.findings}


def overlap_of_fit(snapshots: Sequence[Snapshot]) -> TrainTestOverlap:
    """Return the test tiles of a fit's own snapshots that its final head was trained on."""
    findings = [finding for one in snapshots for finding in find_overlap(one, one)]
    most = {}  # of several variants of the rules
    for finding in sorted(findings, key=lambda finding: finding.count):
        most[finding.check] = finding
    return TrainTestOverlap(_named(snapshots[0]), tuple(most.values()))


def overlap_of_checkpoint(
    model: TrainedModel, config: Config, tested: Snapshot
) -> TrainTestOverlap:
    """Return the test tiles of a snapshot that a checkpoint was trained on.

    It was trained on the snapshot that it names, or that its run recorded. Where that is not on
    this machine any more, the tiles that the run recorded are read again.
    """
    record = _run_of(config.checkpoint or "")
    digest = model.snapshot or _snapshot_of(record)
    if digest:
        trained = tested if digest == tested.digest else None
        with suppress(ArtifactError):
            trained = trained or opened(digest)
        if trained:
            return TrainTestOverlap(_named(trained), tuple(find_overlap(trained, tested)))
    store = _recorded_store(record)
    if record and store:
        training = store.view("tiles").mutate(dropped_by=ibis.null("string"))
        unknown = (
            f"snapshot {digest[:16]}, which it was trained on, is not here, so no embedding could "
            "be compared" if digest else "no embedding could be compared"
        )  # fmt: skip
        groups = tuple(overlapping_groups(training, tested))
        return TrainTestOverlap(f"the tiles that run {record.run} recorded", groups, unknown)
    missing = f": snapshot {digest[:16]} is not here" if digest else " is not recorded with it"
    return TrainTestOverlap("", unknown=f"what the checkpoint was trained on{missing}")


def _named(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.folder.name}"


def _run_of(uri: str) -> RunRecord | None:
    """Return what the run of a checkpoint has recorded; None of a file, or of no run."""
    if names.is_registered(uri) or uri.startswith("runs:/"):
        with suppress(ArtifactError):  # registered without a run, or its run was deleted
            return load_run(names.run_of(uri))
    return None


def _snapshot_of(record: RunRecord | None) -> str | None:
    """Return the digest of the one snapshot that a run has used, None where it was not one."""
    data = record.data if record else {}
    digests = {digest for name, digest in data.items() if name.startswith("snapshot")}
    return digests.pop() if len(digests) == 1 else None


def _recorded_store(record: RunRecord | None) -> FeatureStore | None:
    """Return a store on the tiles of a run, None where they are not those that it recorded."""
    if record is None or not record.config:
        return None
    with suppress(FeatureStoreError):
        config = recorded(record.config, [])
        if config.data.snapshot:
            return None
        store = open_store(config)
        store.view("tiles")
        return store if _is_recorded(store, record) else None
    return None


def _is_recorded(store: FeatureStore, record: RunRecord) -> bool:
    _, digest = store.sources.digests()["tiles"]
    return record.data.get("tiles") == digest
