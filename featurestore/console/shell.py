"""DuckDB's own command line over the views: history, completion, pager, every format."""

import argparse
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from featurestore.backend import engine, statements
from featurestore.console import catalog
from featurestore.console.catalog import Catalog
from featurestore.console.settings import open_store
from featurestore.errors import QueryError
from featurestore.store import FeatureStore

PACKAGE, BINARIES = "duckdb_cli", ("duckdb", "duckdb.exe")


def run_shell(options: argparse.Namespace) -> int:
    """Open DuckDB's command line; return its status."""
    path = Path(options.path) if options.path else None
    return run(open_store(options), path, external=options.external)


def run(store: FeatureStore, path: Path | None = None, *, external: bool = False) -> int:
    """Open DuckDB's command line on a catalog of the views; return its exit status.

    The catalog is opened read-only. It reads `~/.duckdbrc` and keeps `~/.duckdb_history`.

    Parameters
    ----------
    store
        Whose views are asked, by DuckDB whatever the store's own engine is.
    path
        The DuckDB file to write the views to; a temporary one by default.
    external
        Whether statements may read files that are no artifact, and start programs.

    Raises
    ------
    QueryError
        DuckDB's command line is not installed.
    ArtifactError
        See `featurestore.console.catalog.write`.
    """
    program = executable()
    with tempfile.TemporaryDirectory(prefix="featurestore-") as folder:
        spec = replace(store.spec, backend="duckdb")
        filed = FeatureStore(spec, store.threads).add_runs(*store.runs)
        views = catalog.write(filed, path or Path(folder) / "views.duckdb")
        script = Path(folder) / "settings.sql"
        script.write_text(settings(views, store, external), "utf-8")
        command = [str(program), "-readonly", "-cmd", f'.read "{script}"']
        with _interrupts_for_child():
            return subprocess.run([*command, views.path.absolute()], check=False).returncode


def executable() -> Path:
    """Return DuckDB's command line, as its package brings it.

    Its script on the path would change a setting after those of `settings`, and die of Ctrl-C.

    Raises
    ------
    QueryError
        It is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is not None:
        for folder in spec.submodule_search_locations or ():
            for name in BINARIES:
                if (program := Path(folder) / name).is_file():
                    return program
    raise QueryError(
        "`featurestore shell` needs DuckDB's command line",
        found=f"no package {PACKAGE.replace('_', '-')} with it",
        fix="pip install 'tissue-probe[shell]', or ask by `featurestore sql`",
    )


def settings(views: Catalog, store: FeatureStore, external: bool) -> str:
    """Return what the command line runs first: the store's limits, then no way out.

    Safe mode takes external access, other databases, settings and the commands that read, write
    or start something away, for good; the files of the views stay readable.
    """
    lines = engine.settings(store.threads, store.memory_limit)
    if not external:
        lines += [statements.allowed_paths(views.files)]
    commands = [] if external else [".safe_mode"]
    return "".join([*(f"{line};\n" for line in lines), *(f"{line}\n" for line in commands)])


@contextmanager
def _interrupts_for_child() -> Iterator[None]:
    """Leave Ctrl-C to the child: it ends a query, not the shell."""

    def ignore(_: int, __: FrameType | None) -> None:
        """Do nothing; a child inherits SIG_IGN, and no handler."""

    before = signal.signal(signal.SIGINT, ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
