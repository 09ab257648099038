"""What ``featurestore`` answers about a cohort: its views, what is wrong with it, pictures."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.backend import errors as backend_errors
from featurestore.console import answers, catalog, outputs, shell, sql_files
from featurestore.console.describe import description
from featurestore.console.settings import open_store
from featurestore.console.tables import print_funnel, print_matches, print_table, print_tables
from featurestore.errors import ArtifactError, ConfigError
from featurestore.printing import Console, counted, say
from featurestore.snapshots.verify import damages
from featurestore.validation import joins, violations


def add(commands: Any) -> None:
    """Add the commands to a parser's."""
    sql = commands.add_parser("sql", help="ask the views: select, describe, summarize, pivot ...")
    sql.add_argument("query", nargs="?", help="the statement, or several")
    sql.add_argument("-f", "--file", type=Path, help="a .sql file, or a question by its name")
    sql.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    sql.add_argument("-o", "--output", type=Path, help="write there instead of printing")
    _add_external(sql)
    sql.set_defaults(run=_sql, optional="query")

    funnel = commands.add_parser("funnel", help="how many tiles each rule drops")
    funnel.set_defaults(run=_funnel)

    views = commands.add_parser("views", help="the views and their columns")
    views.set_defaults(run=_views)

    checked = commands.add_parser("check", help="all that is wrong with the artifacts")
    checked.add_argument(
        "--quick", action="store_true", help="do not look at every value of the embeddings"
    )
    checked.add_argument(
        "--verify",
        action="store_true",
        help="read every byte of the artifacts and of what is kept of them, believing no memory",
    )
    checked.set_defaults(run=_check)

    described = commands.add_parser("describe", help="rows, slides, classes, folds, coverages")
    described.set_defaults(run=_describe)
    _add_files(commands)


def _add_files(commands: Any) -> None:
    catalog = commands.add_parser("catalog", help="the views as a DuckDB file, without data")
    catalog.add_argument("path", type=Path, help="for example feature_views.duckdb")
    catalog.set_defaults(run=_catalog)

    prompt = commands.add_parser("shell", help="DuckDB's command line over the views, read-only")
    prompt.add_argument(
        "path", nargs="?", help="write the views to this DuckDB file (a temporary one)"
    )
    _add_external(prompt)
    prompt.set_defaults(run=_shell, optional="path")

    plot = commands.add_parser("plot", help="pictures of the cohort, as PNG")
    plot.add_argument("picture", choices=["funnel", "thresholds", "folds", "slides"])
    plot.add_argument("-o", "--output", type=Path, default=Path(), help="folder (here)")
    plot.set_defaults(run=_plot)


def _add_external(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--external", action="store_true", help="queries may read files that are no artifact"
    )


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


def _sql(options: argparse.Namespace) -> None:
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


def _funnel(options: argparse.Namespace) -> None:
    store = open_store(options)
    print_funnel(store.funnel(), Console())
    if store.spec.test_tiles:
        print_funnel(store.funnel("test_"), Console(), "test tiles")


def _views(options: argparse.Namespace) -> None:
    named = open_store(options).name_views()
    rows = [{"view": name, "columns": ", ".join(columns)} for name, columns in named]
    print_table(pa.Table.from_pylist(rows), Console())


def _check(options: argparse.Namespace) -> int:
    store = open_store(options)
    joined = list(joins(store))
    table = violations(store, not options.quick, joined)
    if options.verify:
        table = pa.concat_tables([table, damages(store)])
    errors = table["severity"].to_pylist().count("error")
    print_table(table, Console())
    for name, matches, _ in joined:
        print_matches(matches, Console(), f"surviving {name.replace('_', ' ')} by slide")
    warnings = counted(len(table) - errors, "warning")
    say(f"{counted(errors, 'error')}, {warnings}")
    return 2 if errors else 0


def _describe(options: argparse.Namespace) -> None:
    print_tables(description(open_store(options)), Console())


def _catalog(options: argparse.Namespace) -> None:
    written = catalog.write(open_store(options), options.path)
    say(f"{written.path}: {len(written.views)} views")


def _shell(options: argparse.Namespace) -> int:
    path = Path(options.path) if options.path else None
    return shell.run(open_store(options), path, external=options.external)


def _plot(options: argparse.Namespace) -> None:
    from featurestore.console import plots  # matplotlib, likewise

    store = open_store(options)
    store.survivors("")
    classes = store.classes()
    for path in plots.draw(store.view("fates"), classes, options.output, [options.picture]):
        say(path)
