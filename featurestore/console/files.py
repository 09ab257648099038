"""What ``featurestore`` makes of the views for others to open: a DuckDB file, a shell, pictures."""

import argparse
from pathlib import Path

from featurestore.console import catalog, shell
from featurestore.console.settings import open_store
from featurestore.printing import say


def run_catalog(options: argparse.Namespace) -> None:
    """Write the views as a DuckDB file."""
    written = catalog.write(open_store(options), options.path)
    say(f"{written.path}: {len(written.views)} views")


def run_shell(options: argparse.Namespace) -> int:
    """Open DuckDB's command line; return its status."""
    path = Path(options.path) if options.path else None
    return shell.run(open_store(options), path, external=options.external)


def run_plot(options: argparse.Namespace) -> None:
    """Draw pictures of a cohort."""
    from featurestore.console import plots  # half a second of matplotlib

    store = open_store(options)
    store.survivors("")
    classes = store.classes()
    for path in plots.draw(store.view("fates"), classes, options.output, [options.picture]):
        say(path)
