"""``featurestore``: questions about the views, from the command line.

featurestore funnel
featurestore sql -f sql/fold_balance.sql
featurestore --config runs:/RUN/config.yaml sql "select count(*) from fates" --format json
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featurestore import artifacts, backend, examples
from featurestore.errors import ArtifactError, FeatureStoreError, FeatureStoreWarning
from featurestore.spec import StoreSpec
from featurestore.store import FeatureStore

SHOWN = 200  # rows that a table in the terminal shows


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status, 2 after a refusal."""
    options = _parser().parse_args(argv)
    try:
        with shown_warnings(Console(stderr=True)):
            options.run(options)
    except FeatureStoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `featurestore sql ... | head`
        sys.stderr.close()
    return 0


@contextmanager
def shown_warnings(console: Console) -> Iterator[None]:
    """Print this project's warnings as lines; other libraries' are for us, not for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", FeatureStoreWarning)
        warnings.showwarning = lambda said, *_, **__: console.print(
            f"warning: {said}", markup=False
        )
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="featurestore", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config",
        metavar="URI",
        help="a resolved configuration: a file written by `python -m train.config ...`, or "
        "runs:/RUN/config.yaml of a training run (default: the embedded digits)",
    )
    parser.add_argument("--tracking-uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI)")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: every core)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="for example 4GB")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sql = commands.add_parser("sql", help="ask one SELECT of the views")
    text = sql.add_mutually_exclusive_group(required=True)
    text.add_argument("query", nargs="?", help="the statement")
    text.add_argument("-f", "--file", type=Path, help="a .sql file")
    sql.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    sql.add_argument("-o", "--output", type=Path, help="write there instead of printing")
    sql.set_defaults(run=_sql)

    funnel = commands.add_parser("funnel", help="how many tiles each rule drops")
    funnel.set_defaults(run=_funnel)

    views = commands.add_parser("views", help="the views and their columns")
    views.set_defaults(run=_views)
    return parser


def open_store(options: argparse.Namespace) -> FeatureStore:
    """Open the store that the options name."""
    artifacts.use_tracking(options.tracking_uri)
    spec = _configured(options.config) if options.config else examples.digits_spec()
    return FeatureStore(spec, options.threads, options.memory_limit)


def _configured(uri: str) -> StoreSpec:
    path = Path(artifacts.local_path(uri))
    try:
        return StoreSpec.from_config(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"{uri} is not a resolved configuration",
            found=str(error).splitlines()[0],
            fix="write one with `python -m train.config data=... > store.yaml`",
        ) from error


def _sql(options: argparse.Namespace) -> None:
    query = options.query
    if options.file is not None:
        try:
            query = options.file.read_text()
        except OSError as error:
            raise ArtifactError(
                f"{options.file} cannot be read",
                found=error.strerror or type(error).__name__,
                fix="name a .sql file, for example sql/fold_balance.sql",
            ) from error
    store = open_store(options)
    with backend.translated():
        answer = store.sql(query).to_pyarrow()
    _write(answer, options.format, options.output)


def _funnel(options: argparse.Namespace) -> None:
    store = open_store(options)
    print_funnel(store.funnel(), Console())
    if store.spec.test_tiles:
        print_funnel(store.funnel("test_"), Console(), "test tiles")


def _views(options: argparse.Namespace) -> None:
    rows = [{"view": n, "columns": c} for n, c in open_store(options).name_views()]
    _print(pa.Table.from_pylist(rows))


def print_funnel(rows: list[dict[str, Any]], console: Console, title: str = "tiles") -> None:
    """Print a funnel: reason, number of tiles, share of the input, in step order."""
    table = Table(title=title, title_justify="left")
    for name in ("reason", "tiles", "share"):
        table.add_column(name, justify="left" if name == "reason" else "right")
    total = max(rows[0]["tiles"], 1)
    for row in rows:
        table.add_row(row["reason"], f"{row['tiles']:,}", f"{row['tiles'] / total:.1%}")
    console.print(table)


def _write(answer: pa.Table, form: str, output: Path | None) -> None:
    if form == "table" and output is None:
        _print(answer)
        return
    sink = pa.BufferOutputStream()
    if form == "parquet":
        pq.write_table(answer, sink)
    elif form == "json":
        sink.write((json.dumps(answer.to_pylist(), default=_plain, indent=1) + "\n").encode())
    else:
        pyarrow.csv.write_csv(answer, sink)
    content = sink.getvalue().to_pybytes()
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        artifacts.write_bytes(output, content)


def _plain(value: object) -> object:
    """Return what JSON has no word for: DuckDB's wide sums as numbers, dates as text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _print(answer: pa.Table) -> None:
    table = Table()
    for field in answer.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if number else "left", overflow="fold")
    for row in answer.slice(0, SHOWN).to_pylist():
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    Console().print(table)
    if not len(answer):
        print("no rows")
    if len(answer) > SHOWN:
        print(f"... and {len(answer) - SHOWN:,} more rows (--format csv prints all)")
