"""Test tiles of one snapshot that are among the training tiles of another.

Every kept training tile counts: one that a head was not fitted on has selected something.
"""

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.backend import engine, errors
from featurestore.snapshots.duplicates import duplicates
from featurestore.snapshots.leakage import SHOWN, Finding, finding
from featurestore.snapshots.snapshot import Snapshot
from featurestore.views.leakage import group_counts, groups_in_train_and_test

GROUPS = ("slide_id", "patient_id")
TILES_CHECK = "test tiles with the embedding of a tile that the model was trained on"
TEST = "test_"


def groups_check(group: str) -> str:
    """Return the name of the check of a column of slides or patients."""
    return f"values of {group} among both test tiles and those that the model was trained on"


def overlapping_groups(training: ir.Table, tested: Snapshot) -> list[Finding]:
    """Return the slides and patients of test tiles that are among those of training tiles.

    Parameters
    ----------
    training
        Tiles with ``dropped_by``.
    tested
        The snapshot of the test tiles.
    """
    test = engine.read_parquet(training.get_backend(), tested.files(TEST))
    undivided = _undivided(tested)
    groups = [name for name in GROUPS if {name} <= {*training.columns} & {*test.columns}]
    counts, test_counts = (group_counts(fates, groups) for fates in (training, test))
    findings = []
    for group in groups:
        common = groups_in_train_and_test(counts, test_counts, group)
        with errors.translated():
            count = int(common.count().to_pyarrow().as_py())
            first = common.limit(SHOWN).to_pyarrow()
        findings.append(finding(groups_check(group), group in undivided, count, first))
    return findings


def find_overlap(trained: Snapshot, tested: Snapshot) -> list[Finding]:
    """Return `overlapping_groups`, and what is found of test tiles whose embedding was trained on.

    Parameters
    ----------
    trained, tested
        The snapshots that the model was trained on, and of the test tiles: often the same.
    """
    connection = engine.connect()
    training = engine.read_parquet(connection, trained.files())
    findings = overlapping_groups(training, tested)
    return [*findings, _overlapping_embeddings(training, trained, tested)]


def _overlapping_embeddings(training: ir.Table, trained: Snapshot, tested: Snapshot) -> Finding:
    """Look for one embedding under two keys; in one snapshot it has been looked for already."""
    promised = bool(_undivided(tested))
    known = trained.findings[-1:] if trained.digest == tested.digest else []
    if known and not known[0].count:  # neither across folds nor in the test set
        return Finding(TILES_CHECK, promised, 0, "")
    test = engine.read_parquet(training.get_backend(), tested.files(TEST))
    one_side = training.mutate(fold=ibis.literal(0))  # or those of two folds are duplicates, too
    matrices = {"": trained.matrices[""], TEST: tested.matrices[TEST]}
    pairs: pa.Table = duplicates({"": one_side, TEST: test}, matrices)
    pairs = pairs.filter(pc.equal(pairs["side"], "test"))
    names = ["slide_id", "x", "y", "other_slide_id", "other_x", "other_y"]
    return finding(TILES_CHECK, promised, len(pairs), pairs.select(names))


def _undivided(tested: Snapshot) -> tuple[str, ...]:
    """Return the groups of which the folds' strategy promises that none is on both sides."""
    rules = tested.manifest["rules"]
    grouped = rules["kfold_strategy"] == "stratified_group"
    return ("slide_id", rules["kfold_group"]) if grouped else ()
