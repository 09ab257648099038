"""Arguments of what `featurestore` answers about a cohort."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands to a parser's."""
    sql = commands.add_parser("sql", help="ask the views: select, describe, summarize, pivot ...")
    sql.add_argument("query", nargs="?", help="the statement, or several")
    sql.add_argument("-f", "--file", type=Path, help="a .sql file, or a question by its name")
    sql.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    sql.add_argument("-o", "--output", type=Path, help="write there instead of printing")
    _add_external(sql)
    sql.set_defaults(run="questions:run_sql", optional="query")

    funnel = commands.add_parser("funnel", help="how many tiles each rule drops")
    funnel.set_defaults(run="questions:run_funnel")

    views = commands.add_parser("views", help="the views and their columns")
    views.set_defaults(run="questions:run_views")

    checked = commands.add_parser("check", help="all that is wrong with the artifacts")
    checked.add_argument(
        "--quick", action="store_true", help="do not look at every value of the embeddings"
    )
    checked.add_argument(
        "--verify",
        action="store_true",
        help="read every byte of the artifacts and of what is kept of them, believing no memory",
    )
    checked.set_defaults(run="checks:run")

    described = commands.add_parser("describe", help="rows, slides, classes, folds, coverages")
    described.set_defaults(run="questions:run_describe")
    _add_files(commands)


def _add_files(commands: Any) -> None:
    catalog = commands.add_parser("catalog", help="the views as a DuckDB file, without data")
    catalog.add_argument("path", type=Path, help="for example feature_views.duckdb")
    catalog.set_defaults(run="catalog:run")

    prompt = commands.add_parser("shell", help="DuckDB's command line over the views, read-only")
    prompt.add_argument(
        "path", nargs="?", help="write the views to this DuckDB file (a temporary one)"
    )
    _add_external(prompt)
    prompt.set_defaults(run="shell:run_shell", optional="path")

    plot = commands.add_parser("plot", help="pictures of the cohort, as PNG")
    plot.add_argument("picture", choices=["funnel", "thresholds", "folds", "slides"])
    plot.add_argument("-o", "--output", type=Path, default=Path(), help="folder (here)")
    plot.set_defaults(run="plots:run")


def _add_external(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--external", action="store_true", help="queries may read files that are no artifact"
    )
