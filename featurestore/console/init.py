"""``featurestore init``: looks at what lies in a folder and writes it down as ``data.yaml``."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from shlex import quote
from typing import Any

import pyarrow as pa

from featurestore.console import settings
from featurestore.console.commands.init import FLAGS
from featurestore.console.tables import print_findings, print_table
from featurestore.discovery import choice, cohort, data_file, folders, kinds
from featurestore.discovery.cohort import Cohort
from featurestore.discovery.folders import Candidate
from featurestore.discovery.grouping import Grouping, suggested
from featurestore.errors import ArtifactError, ConfigError
from featurestore.io import atomic, mlflow_artifacts, uris
from featurestore.printing import Console, counted, say
from featurestore.spec.places import YAML, is_path
from featurestore.spec.store_spec import StoreSpec
from featurestore.store import FeatureStore
from featurestore.validation import COLUMNS, violations
from featurestore.views.classes import class_names, merged_classes

THRESHOLD = 0.5
"""The least coverage that is suggested for every class: more than half of a tile, or it is none."""
COLUMN = "embedding"


def run(options: argparse.Namespace) -> None:
    """Look, ask, check, and write."""
    values = _given(options)
    _check_target(options)
    mlflow_artifacts.use_tracking(options.tracking_uri)
    chosen = _chosen(options, values)
    columns = _columns(options, chosen, values.get("columns") or {})
    uris_of = {name: one.uri for name, one in chosen.items() if one is not None}
    spec = StoreSpec().overlaid({**uris_of, **values, "columns": columns})
    given = spec.thresholds or {}
    spec = replace(spec, **_suggested_classes(spec, chosen["tiles"]))
    store = _checked(spec, options)
    cohorts = {name: cohort.cohort_of(store, name) for name in uris_of}
    folds = _suggested_folds(cohorts["tiles"], values)
    spec = replace(spec, **folds.values)
    fold = cohorts["tiles"].folds[0] if cohorts["tiles"].folds else 0
    content = data_file.text(spec, _name(options), options.to, (fold, folds.why))
    _print(chosen, cohorts, store, options.to)
    atomic.write_bytes(options.to, content.encode())
    _print_end(spec, folds, options.to, fold, given)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a spec that flags, arguments and files of classes set."""
    if "data" in options.files or options.config is not None:
        raise ConfigError(
            "`featurestore init` writes what data=FILE names",
            found=f"data={options.files.get('data', options.config)}",
            fix="leave it out; --to says where it is to be written",
        )
    values: dict[str, Any] = {}
    for group, uri in options.files.items():
        values |= settings.values_of(group, uri)
    values |= options.values
    for name in FLAGS:
        if (uri := getattr(options, name)) is not None:
            values[name] = uri
    if not options.places and not {"tiles", "embeddings"} <= values.keys():
        raise ConfigError(
            "There is no place to look at",
            found="no argument",
            fix="name a folder: `featurestore init FOLDER`; or --tiles URI --embeddings URI",
        )
    return values


def _check_target(options: argparse.Namespace) -> None:
    if options.to.suffix not in YAML:
        raise ConfigError(
            f"{options.to} is not the name of a file of YAML",
            found=options.to.suffix or "no suffix",
            fix="name a file that ends with .yaml: the scripts take data=FILE.yaml",
        )
    if options.to.exists() and not options.force:
        raise ArtifactError(
            f"{options.to} is there already",
            found="a folder" if options.to.is_dir() else f"{options.to.stat().st_size:,} bytes",
            fix="name another file, --to mine.yaml, or replace it: --force",
        )


def _chosen(options: argparse.Namespace, values: dict[str, Any]) -> dict[str, Candidate | None]:
    """Return what is each artifact: what was named, what alone can be it, or what is answered."""
    contents = folders.look(options.places)
    chosen: dict[str, Candidate | None] = {}
    for name in choice.ARTIFACTS:
        if name in values:
            chosen[name] = folders.candidate(values[name]) if values[name] is not None else None
            continue
        candidates = choice.options(name, contents, chosen)
        uris_of = [one.uri for one in candidates]
        title = name.replace("_", " ")
        place = _one_of(title, uris_of, f"--{title.replace(' ', '-')}", options)
        chosen[name] = candidates[place] if candidates else None
    choice.check(contents, chosen, ", ".join(options.places) or "what is named")
    return chosen


def _one_of(title: str, names: Sequence[str], flag: str, options: argparse.Namespace) -> int:
    """Return the place of one of some names: the only one, the first, or what is answered."""
    if len(names) < 2 or options.yes:
        return 0
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{len(names)} may be the {title}",
            found=kinds.spelled(names),
            fix=f"say which: {flag}{'' if flag.endswith('=') else ' '}{quote(names[0])}, a folder "
            "or a glob; or take the first: --yes",
        )
    say(f"{len(names)} may be the {title}:")
    for number, name in enumerate(names[:20], 1):
        say(f"  {number}  {name}")
    while True:
        try:
            answer = input("which is it? [1] ").strip() or "1"
        except EOFError:
            answer = "1"
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return int(answer) - 1
        say(f"a number from 1 to {len(names)}")


def _columns(
    options: argparse.Namespace, chosen: dict[str, Candidate | None], given: dict[str, str]
) -> dict[str, str]:
    """Return under which names the columns of the contract stand, those that were given first."""
    guesses: dict[str, dict[str, str]] = {}
    for artifact, one in chosen.items():
        if one is None or artifact == "slides":
            continue
        what = kinds.EMBEDDINGS if artifact.endswith("embeddings") else kinds.TILES
        first = one.dataset.filled[0]
        guesses[artifact] = {}
        for name, columns in kinds.columns_of(first.schema, first.partition, what).items():
            if name in given or not columns:
                continue
            several = columns if name == COLUMN else columns[:1]  # others stand by likelihood
            place = _one_of(
                f"column {name} of the {artifact.replace('_', ' ')}", several,
                f"data.columns.{name}=", options,
            )  # fmt: skip
            guesses[artifact][name] = several[place]
    return {**kinds.joined_columns(guesses), **given}


def _suggested_classes(spec: StoreSpec, tiles: Candidate | None) -> dict[str, Any]:
    """Return indices in the order of columns and a threshold for each class, as far as unset."""
    assert tiles is not None
    columns = [*tiles.dataset.columns]
    merged = merged_classes(class_names(columns), spec.merge)
    trained = [name for name in merged if name not in spec.drop]
    return {
        "class_indices": spec.class_indices or {name: n for n, name in enumerate(trained)},
        "thresholds": {**dict.fromkeys(trained, THRESHOLD), **(spec.thresholds or {})},
    }


def _suggested_folds(tiles: Cohort, values: dict[str, Any]) -> Grouping:
    """Return folds that keep groups together, where the tiles bring none and nobody chose."""
    if tiles.folds or {"kfold_strategy", "kfold_group", "fold_rule"} & values.keys():
        return Grouping({}, "")
    return suggested(tiles, values.get("k", StoreSpec().k), k_given="k" in values)


def _checked(spec: StoreSpec, options: argparse.Namespace) -> FeatureStore:
    """Open a store, and refuse what breaks the contract or leaves no tile.

    Raises
    ------
    FeatureStoreError
        With the first of what is wrong; `featurestore check` says all of it.
    """
    store = FeatureStore(spec, options.threads, options.memory_limit)
    # Tiles without embeddings are shown slide by slide, and are the next command's to judge.
    rows = violations(store, embeddings=False, joined=()).to_pylist()
    by_wording = {row["wrong"]: row for row in rows if row["severity"] == "error"}
    if errors := list(by_wording.values()):  # of tiles and of test tiles alike: told once
        print_findings(pa.Table.from_pylist(errors[1:], COLUMNS), Console(stderr=True))
        raise ArtifactError(
            f"What is there cannot be used, nothing was written: {errors[0]['wrong']}",
            found=f"{counted(len(errors), 'error')}; {errors[0]['found']}",
            fix=errors[0]["to do"],
        )
    for prefix in ("", *(["test_"] if spec.test_tiles else [])):
        store.survivors(prefix)
    return store


def _name(options: argparse.Namespace) -> str:
    """Return the cohort's name: that of the place that was looked at first."""
    place = options.places[0] if options.places else "."
    path = Path(uris.local_path(place)) if is_path(place) else PurePath(place)
    return (path.resolve().name if isinstance(path, Path) else path.name) or "files"


def _print(
    chosen: dict[str, Candidate | None],
    cohorts: dict[str, Cohort],
    store: FeatureStore,
    to: Path,
) -> None:
    """Print what was seen, named as in the file to write, and which slides have no counterpart."""
    rows = [
        {
            "artifact": name,
            "where": data_file.written_path(one.uri, to),
            "rows": one.rows,
            "files": len(one.dataset.fragments),
            "holds": cohorts[name].text,
        }
        for name, one in chosen.items()
        if one is not None
    ]
    print_table(pa.Table.from_pylist(rows), Console())
    for gap in cohort.gaps(store):
        slides, names = counted(len(gap.slides), "slide"), kinds.spelled(gap.slides)
        say(f"{slides} of the {gap.artifact} without a counterpart in the {gap.other}: {names}")
        if gap.other.endswith("embeddings"):
            say("  training refuses them and says why; allow_missing=1 leaves them out")


def _print_end(
    spec: StoreSpec, folds: Grouping, to: Path, fold: int, given: Mapping[str, float]
) -> None:
    """Print what was decided, and what to run next; which thresholds nobody has given."""
    thresholds = spec.thresholds or {}
    spelled = kinds.spelled([f"{name} {least:g}" for name, least in thresholds.items()], 10)
    suggested = [name for name in thresholds if name not in given]
    names = f" of {kinds.spelled(suggested)}" if given else ""
    advice = f"see `featurestore plot thresholds data={quote(str(to))}`"
    say(f"thresholds: {spelled}"
        + (f"; {THRESHOLD}{names} is a suggestion, {advice}" if suggested else ""))  # fmt: skip
    for name, column in spec.columns.items():
        say(f"column {name} is read from {column!r}")
    if folds.why:
        keys = " ".join(f"{key}={value}" for key, value in folds.values.items())
        say(f"{folds.why}{': ' if keys else ''}{keys}")
    say(f"{to}: written. Next:")
    say(f"  featurestore check data={quote(str(to))}")
    say(f"  accelerate launch train/probe.py data={quote(str(to))} fold={fold}")
