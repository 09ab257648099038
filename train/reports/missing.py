"""Tiles that were to be predicted and have no embedding, listed in a file."""

from pathlib import Path

import ibis.expr.types as ir
import pyarrow.parquet as pq

from featurestore.backend import engine
from featurestore.io.atomic import fresh_file
from featurestore.views.folds import KEY

FILE = "without_embedding.parquet"


def write(missing: ir.Table, folder: Path) -> int:
    """List tiles in a file, if there are any; return how many.

    Parameters
    ----------
    missing
        ``slide_id, x, y``, a table of DuckDB.
    folder
        That of the run, from which the list of an earlier run goes.
    """
    file = folder / FILE
    with fresh_file(file) as fresh:
        engine.write_parquet(missing.order_by(list(KEY)), fresh)
    number = int(pq.read_metadata(file).num_rows)
    if not number:
        file.unlink()
    return number
