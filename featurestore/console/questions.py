"""What ``featurestore`` answers about a cohort: its views, its funnel, any query."""

import argparse
import sys

import pyarrow as pa

from featurestore.backend import errors as backend_errors
from featurestore.console import answers, outputs, sql_files
from featurestore.console.describe import description
from featurestore.console.settings import open_store
from featurestore.console.tables import print_funnel, print_table, print_tables
from featurestore.errors import ArtifactError, ConfigError
from featurestore.printing import Console


def _query(options: argparse.Namespace) -> str:
    """Return the statement that is asked, of the command line or of a file."""
    if (options.query is None) == (options.file is None):
        raise ConfigError(
            "`featurestore sql` asks one statement",
            found="none" if options.file is None else "one, and a file",
            fix="write it, or name a question: -f fold_balance",
        )
    if options.file is None:
        return str(options.query)
    return sql_files.read(options.file)


def run_sql(options: argparse.Namespace) -> None:
    """Ask a query, and print or write its answer."""
    if options.format == "parquet" and options.output is None and sys.stdout.isatty():
        raise ArtifactError(
            "Parquet is not for a terminal", found="no output", fix="name a file: -o answer.parquet"
        )
    query = _query(options)
    store = open_store(options)
    if options.output is not None:
        outputs.check(store, options.output)
    if not options.external:
        store.seal()
    with backend_errors.translated(), answers.presentable(options.format):
        given = store.answers(query, options.external)
    answers.write(given, options.format, options.output)


def run_funnel(options: argparse.Namespace) -> None:
    """Print how many tiles each rule drops."""
    store = open_store(options)
    print_funnel(store.funnel(), Console())
    if store.spec.test_tiles:
        print_funnel(store.funnel("test_"), Console(), "test tiles")


def run_views(options: argparse.Namespace) -> None:
    """Print the views and their columns."""
    named = open_store(options).name_views()
    rows = [{"view": name, "columns": ", ".join(columns)} for name, columns in named]
    print_table(pa.Table.from_pylist(rows), Console())


def run_describe(options: argparse.Namespace) -> None:
    """Print what a cohort holds."""
    print_tables(description(open_store(options)), Console())
