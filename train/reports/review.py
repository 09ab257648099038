"""The tiles that a person is to review: those whose prediction is not sure enough."""

import pyarrow as pa

from train.predictions.files import write_parquet
from train.predictions.table import Predictions
from train.runtime.run import Run


def record(run: Run, predictions: Predictions, prefix: str, tiles: int) -> None:
    """Write the tiles whose prediction is less sure than ``abstain_below``, the least first.

    Parameters
    ----------
    predictions
        All of those, and maybe others.
    prefix
        Begins the names of files.
    tiles
        How many were predicted.
    """
    least, sure = run.config.abstain_below, predictions.confidence
    if least is None:
        return
    doubtful = predictions.by_confidence(sure < least)
    review = predictions.table().take(pa.array(doubtful))
    review = review.append_column("confidence", pa.array(sure[doubtful]))
    file = f"{prefix}review.parquet"
    run.tracker.file(write_parquet(run.folder / file, review))
    run.tracker.metrics({f"{prefix}review/tiles": len(review)})
    run.console.print(f"{file}: {len(review):,} of {tiles:,} tiles are less sure than {least}")
