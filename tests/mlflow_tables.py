"""The tables of MLflow's databases, made by its migrations once and copied into all others."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Error, connect
from typing import Any


def copying(make: Callable[[Any], None], kept: Path) -> Callable[[Any], None]:
    """Return what makes MLflow's tables in a database by copying those of another.

    They take seconds of migrations each time; what comes out is the same.

    Parameters
    ----------
    make
        What makes them in the first database of sqlite, and in those of other kinds.
    kept
        The copy: it is made of the first, and appears as a whole.
    """

    def make_or_copy(engine: Any) -> None:
        if engine.dialect.name != "sqlite":
            make(engine)
        elif kept.exists():
            try:
                with closing(connect(kept)) as ready, closing(engine.raw_connection()) as new:
                    ready.backup(new.driver_connection)
            except Error:  # a disk that is full, say, which MLflow is to find out by itself
                make(engine)
        else:
            make(engine)
            partial = kept.with_name(f"{kept.name}.{os.getpid()}")
            with closing(engine.raw_connection()) as ready, closing(connect(partial)) as copy:
                ready.driver_connection.backup(copy)
            partial.replace(kept)

    return make_or_copy
