"""``featurestore``: questions about the views, from the command line.

featurestore funnel
featurestore sql -f sql/fold_balance.sql
featurestore --config runs:/RUN/config.yaml sql "select count(*) from fates" --format json
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.filesize import decimal

from featurestore import examples
from featurestore.backend import errors as backend_errors
from featurestore.console import answers, catalog, cover, imports, outputs, shell
from featurestore.console.describe import description
from featurestore.console.tables import print_funnel, print_matches, print_table, print_tables
from featurestore.embeddings.layout import STORED
from featurestore.errors import ArtifactError, FeatureStoreError, FeatureStoreWarning
from featurestore.io import downloads, garbage, ledger, mlflow_artifacts, names, uris
from featurestore.io.objects import collection as objects
from featurestore.io.objects import shared
from featurestore.io.objects.shared import Shared
from featurestore.io.progress import Rows
from featurestore.printing import Console, print_error, say
from featurestore.snapshots import build, collection, diff, shared_store, tags
from featurestore.snapshots.export import export
from featurestore.snapshots.leakage import raise_leaks
from featurestore.snapshots.verify import damages
from featurestore.spec import bounds
from featurestore.spec.bounds import THREADS
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import joins, violations

FITS = "fits"  # see train/runtime/fit_state.py


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status, 2 after a refusal."""
    options = _parser().parse_args(argv)
    try:
        with shown_warnings(Console(stderr=True)), names.resolved_once():
            shared.use(options.store)
            return options.run(options) or 0
    except FeatureStoreError as error:
        print_error(error)
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
        warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}")
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
    parser.add_argument(
        "--store",
        metavar="PLACE",
        default=os.environ.get("FEATURESTORE_STORE"),
        help="path or s3://bucket/prefix through which machines share what they make",
    )
    parser.add_argument("--threads", type=int, help="threads of the engine (default: every core)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="for example 4GB")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sql = commands.add_parser("sql", help="ask one SELECT of the views")
    text = sql.add_mutually_exclusive_group(required=True)
    text.add_argument("query", nargs="?", help="the statement")
    text.add_argument("-f", "--file", type=Path, help="a .sql file")
    sql.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    sql.add_argument("-o", "--output", type=Path, help="write there instead of printing")
    _add_external(sql)
    sql.set_defaults(run=_sql)

    funnel = commands.add_parser("funnel", help="how many tiles each rule drops")
    funnel.set_defaults(run=_funnel)

    views = commands.add_parser("views", help="the views and their columns")
    views.set_defaults(run=_views)
    cover.add(commands)
    _add_cohort(commands)
    _add_snapshots(commands)
    imports.add(commands)
    return parser


def _add_cohort(commands: Any) -> None:
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

    catalog = commands.add_parser("catalog", help="the views as a DuckDB file, without data")
    catalog.add_argument("path", type=Path, help="for example feature_views.duckdb")
    catalog.set_defaults(run=_catalog)

    prompt = commands.add_parser("shell", help="DuckDB's command line over the views, read-only")
    prompt.add_argument(
        "path", type=Path, nargs="?", help="write the views to this DuckDB file (a temporary one)"
    )
    _add_external(prompt)
    prompt.set_defaults(run=_shell)

    plot = commands.add_parser("plot", help="pictures of the cohort, as PNG")
    plot.add_argument("picture", choices=["funnel", "thresholds", "folds", "slides"])
    plot.add_argument("-o", "--output", type=Path, default=Path(), help="folder (here)")
    plot.set_defaults(run=_plot)


def _add_external(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--external", action="store_true", help="queries may read files that are no artifact"
    )


def _add_snapshots(commands: Any) -> None:
    make = commands.add_parser("materialise", help="write the training set, once")
    make.add_argument("--storage", choices=list(STORED), help="type of the embeddings")
    make.set_defaults(run=_materialise)

    listed = commands.add_parser("snapshots", help="the training sets that were written")
    listed.add_argument("--tag", metavar="TAG", help="name the last used one, or SNAPSHOT")
    listed.add_argument("--untag", metavar="TAG", help="take a name away")
    listed.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="the one to name")
    listed.add_argument(
        "--store", metavar="PLACE", default=argparse.SUPPRESS, help="as before the command"
    )
    listed.set_defaults(run=_snapshots)

    verified = commands.add_parser(
        "verify", help="read every byte of the artifacts and of what is kept; say what is damaged"
    )
    _add_place(verified, "read what lies in this store instead, every byte of it")
    verified.add_argument(
        "--repair",
        action="store_true",
        help="remove what is damaged in the store, and send what is whole here again",
    )
    verified.set_defaults(run=_verify)

    gc = commands.add_parser(
        "gc", help="remove old training sets, downloads and killed fits, never one in use"
    )
    gc.add_argument("--keep", type=int, default=5, help="how many of the last used stay (5)")
    _add_place(gc, "remove in this store instead what no snapshot there needs, and nobody has used "
               "for a day")  # fmt: skip
    gc.set_defaults(run=_gc)

    differ = commands.add_parser("diff", help="what differs between two training sets")
    differ.add_argument("before", help="a snapshot's name, or the beginning of it")
    differ.add_argument("after")
    differ.set_defaults(run=_diff)

    out = commands.add_parser("export", help="the training set as portable Parquet")
    out.add_argument("--to", required=True, help="`mlflow`, or a folder that is not there yet")
    out.set_defaults(run=_export)


def _add_place(command: argparse.ArgumentParser, text: str) -> None:
    """Add a store to work on, which that of the environment does not stand for."""
    command.add_argument("--store", metavar="PLACE", dest="place", help=text)


def open_store(options: argparse.Namespace, **rules: Any) -> FeatureStore:
    """Open the store that the options name, some of its rules replaced."""
    bounds.check([("--threads", options.threads)], THREADS)
    mlflow_artifacts.use_tracking(options.tracking_uri)
    given = options.config is not None  # an empty name is that of a shell's unset variable
    spec = _configured(options.config) if given else examples.digits_spec()
    return FeatureStore(replace(spec, **rules), options.threads, options.memory_limit)


def _configured(uri: str) -> StoreSpec:
    path = Path(uris.local_path(uri))
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a name may hold what no file's can
        raise ArtifactError(
            f"{uri or repr(uri)} is not a resolved configuration",
            found=getattr(error, "strerror", None) or str(error),
            fix="write one with `python -m train.config data=... > store.yaml`",
        ) from error
    return StoreSpec.from_yaml(content, uri)


def _sql(options: argparse.Namespace) -> None:
    if options.format == "parquet" and options.output is None and sys.stdout.isatty():
        raise ArtifactError(
            "Parquet is not for a terminal", found="no output", fix="name a file: -o answer.parquet"
        )
    query = options.query
    if options.file is not None:
        try:
            query = options.file.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{options.file} cannot be read",
                found=getattr(error, "strerror", None) or str(error),
                fix="name a .sql file in UTF-8, for example sql/fold_balance.sql",
            ) from error
    store = open_store(options)
    if options.output is not None:
        outputs.check(store, options.output)
    if not options.external:
        store.seal()
    with backend_errors.translated(), answers.presentable(options.format):
        answer = store.sql(query, options.external).to_pyarrow()
    answers.write(answer, options.format, options.output)


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
    say(f"{errors} errors, {len(table) - errors} warnings")
    return 2 if errors else 0


def _verify(options: argparse.Namespace) -> int:
    if options.place:
        return _verify_shared(_place(options), options.repair)
    if options.repair:
        raise ArtifactError(
            "Here nothing is to be repaired by hand",
            found="--repair without a store",
            fix="leave it out: what is damaged here is set aside, and made again when it is asked "
            "for; or name the store after the command: verify --store PLACE --repair",
        )
    rows = damages(open_store(options)).to_pylist()
    for row in rows:
        say(f"{row['artifact']}: {row['wrong']}\n  found: {row['found']}\n  to do: {row['to do']}")
    say(f"{len(rows)} damaged" if rows else "nothing is damaged")
    return 2 if rows else 0


def _verify_shared(store: Shared, repair: bool) -> int:
    damaged = 0
    for one in shared_store.verify(store, repair):
        damaged += 1
        say(f"{one.place} is damaged in {store.uri}\n  found: {one.fault}\n  to do: {one.advice}")
    say(f"{damaged} damaged" if damaged else "nothing is damaged")
    return 2 if damaged else 0


def _place(options: argparse.Namespace) -> Shared:
    """Return the store that a command is to work on."""
    shared.use(options.place)
    store = shared.current()
    assert store is not None
    return store


def _describe(options: argparse.Namespace) -> None:
    print_tables(description(open_store(options)), Console())


def _catalog(options: argparse.Namespace) -> None:
    written = catalog.write(open_store(options), options.path)
    say(f"{written.path}: {len(written.views)} views")


def _shell(options: argparse.Namespace) -> int:
    return shell.run(open_store(options), options.path, external=options.external)


def _plot(options: argparse.Namespace) -> None:
    from featurestore.console import plots  # matplotlib, likewise

    store = open_store(options)
    store.survivors("")
    classes = store.classes()
    for path in plots.draw(store.view("fates"), classes, options.output, [options.picture]):
        say(path)


def _materialise(options: argparse.Namespace) -> None:
    store = open_store(options, **({"storage": options.storage} if options.storage else {}))
    made = build.materialise(store, Rows(Console(stderr=True)))
    name, cohort = next(iter(made.manifest["cohorts"].items()))  # the test tiles, if alone
    print_funnel(cohort["funnel"], Console(), name.replace("_", " "))
    for leak in raise_leaks(made.findings, store.spec.leakage):
        say(f"leak: {leak}")
    if made.lineage:
        say(f"folds: {made.lineage}")
    say(f"snapshot: {made.folder.name}")


def _snapshots(options: argparse.Namespace) -> None:
    if options.untag:
        say(f"{tags.untag(options.untag)} is not called {options.untag} any more")
    if options.tag:
        wanted = options.snapshot or next(iter(collection.names()), "")
        name = collection.full_name(wanted)
        shared_store.share_snapshot(name)
        tags.tag(options.tag, name)
    print_table(
        pa.Table.from_pylist([_line(row) for row in collection.listing().to_pylist()]), Console()
    )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the listing shows of a snapshot, in the width of a terminal."""
    return {
        "snapshot": " ".join([row["snapshot"], *row["tags"]]),
        "kept of": f"{row['kept']:,} of {row['rows']:,}",
        "embeddings": f"{row['dim']} {row['storage']} {decimal(row['embeddings'])}",
        "parts": row["parts"],
        "own": decimal(row["bytes"]),
        "last use": "now" if row["in_use"] else row["used"][:16],  # to the minute
    }


def _gc(options: argparse.Namespace) -> None:
    keep = max(options.keep, 0)
    if options.place:
        for name in shared_store.collect(_place(options), keep):
            say(f"removed {name}")
        return
    kinds = (
        collection.collect(keep),
        downloads.collect(keep),
        objects.collect(keep),  # after the folders that need them
        garbage.collect(FITS, keep),
    )
    for folder in [*(folder for kind in kinds for folder in kind), *garbage.collect_broken()]:
        say(f"removed {folder}")
    if forgotten := ledger.forget_gone():
        say(f"forgot the digests of {forgotten} files that are gone or changed")


def _diff(options: argparse.Namespace) -> None:
    sides = [collection.opened(name) for name in (options.before, options.after)]
    print_tables(diff.difference(*sides), Console())


def _export(options: argparse.Namespace) -> None:
    store, bar = open_store(options), Rows(Console(stderr=True))
    made = build.materialise(store, bar)
    for leak in raise_leaks(made.findings, store.spec.leakage):
        warnings.warn(f"leak: {leak}", FeatureStoreWarning, stacklevel=2)
    say(export(store, made, options.to, bar))
