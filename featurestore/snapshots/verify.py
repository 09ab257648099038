"""Every byte read again: of the artifacts, and of what is kept between runs."""

from pathlib import Path

import pyarrow as pa

from featurestore.contract.violation import Violation
from featurestore.errors import FeatureStoreError
from featurestore.folds import artifact
from featurestore.io import digests
from featurestore.snapshots import collection
from featurestore.store import FeatureStore
from featurestore.validation import COLUMNS, as_violation, row

REMADE = "nothing: it is set aside, and made again by the next run or `featurestore materialise`"


def damages(store: FeatureStore) -> pa.Table:
    """Read every byte of the artifacts, and of what is kept of any; return what has changed.

    A digest that was remembered of other bytes is corrected. What is kept and damaged is set aside.

    Returns
    -------
    pa.Table
        As `featurestore.validation.violations`.
    """
    rows = []
    for name in store.spec.uris():
        try:
            identities = store.sources.dataset(name).identities
            # An object's digest is that of the store: a copy here is looked at with what is kept.
            changed = digests.wrongly_remembered(
                f for f, one in identities.items() if not one.is_object
            )
        except FeatureStoreError as error:
            rows.append(row(name, as_violation(error)))
            continue
        rows += [
            row(name, Violation(
                f"{file} has other bytes than when its digest was remembered",
                "the same size, times and file: a damaged disk, or a writer that hides",
                "bring the file back from its source, or train again: the digest is corrected",
            )) for file in changed
        ]  # fmt: skip
    rows += [
        row("kept", Violation(f"{folder} is damaged", wrong, _advice(folder)))
        for folder, wrong in collection.damaged()
    ]
    return pa.Table.from_pylist(rows, COLUMNS)


def _advice(folder: Path) -> str:
    if folder.parent.name == artifact.NAME:
        return "bring it back, unless MLflow has it: made again, folds may be others"
    return REMADE
