"""Compare runs on the same tiles: what differs, by how much, and whether slides agree on it.

    python train/compare.py RUN RUN [RUN ...]
    python train/compare.py models:/tissue-probe/1 models:/tissue-probe/2 --output comparison
    python train/compare.py a/predictions.parquet b/predictions.parquet --resample patient_id

Each is the id of a run, a models:/ URI (its run's predictions), or what a run has written: a file,
or the folder of mode=predict.
The first is what the others are compared with. Differences have 95 % intervals that resample
slides, of both at once (or patients, if the predictions have that column, as those of runs with
evidence.resample or evidence.groups do); McNemar's test is beside them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.console.tables import print_table
from featurestore.errors import ArtifactError, EmptyViewError, FeatureStoreError, SchemaError
from featurestore.io.names import resolved_once
from featurestore.printing import Console, print_error
from featurestore.spec import bounds
from featurestore.spec.bounds import SEEDS
from train.evaluation import comparison, estimates
from train.plots.evaluation import differences_png
from train.predictions.files import predictions, resolved, write_parquet
from train.predictions.table import encode_clusters, plural

KEY = ["slide_id", "x", "y"]
SHOWN = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "kappa",
    "kappa_quadratic",
    "brier",
    "calibration_error",
)


@dataclass(frozen=True)
class Pair:
    """Predictions of two runs for the tiles that both have.

    Parameters
    ----------
    target, unit
        Class index and number of what is resampled, shape (tiles,).
    one, other
        Probabilities, shape (tiles, K).
    names
        The classes, by index.
    left_out
        Tiles that only one has.
    """

    target: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    one: npt.NDArray[np.float32]
    other: npt.NDArray[np.float32]
    names: list[str]
    left_out: int


@dataclass(frozen=True)
class How:
    """How runs are compared.

    Parameters
    ----------
    seed
        Of the resamples.
    resample
        Column of the predictions whose values intervals resample.
    ordered
        Whether the order of classes means something.
    """

    seed: int = 0
    resample: str = "slide_id"
    ordered: bool = False


def main(argv: Sequence[str]) -> int:
    """Compare runs; return the exit status, 2 after a refusal."""
    parser = argparse.ArgumentParser(
        prog="compare.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run id, models:/ URI, file or folder"
    )
    parser.add_argument("--uri", help="tracking URI (default: MLFLOW_TRACKING_URI, else sqlite)")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resample", default="slide_id", metavar="COLUMN", help="of the predictions: patient_id"
    )
    parser.add_argument(
        "--ordered", action="store_true", help="the order of classes means something"
    )
    options = parser.parse_args(argv)
    try:
        bounds.check([("--seed", options.seed)], SEEDS)
        how = How(options.seed, options.resample, options.ordered)
        with resolved_once():
            compare(options.runs, options.uri, options.output, how, Console())
    except FeatureStoreError as error:
        print_error(error)
        return 2
    return 0


def compare(runs: list[str], uri: str | None, output: Path, how: How, console: Console) -> None:
    """Print and write the comparison of the first run with each of the others."""
    if len(runs) < 2:
        raise ArtifactError(
            "One run alone cannot be compared", found=runs[0], fix="name at least two"
        )
    runs = [resolved(run, uri) for run in runs]
    tables = [predictions(run, uri) for run in runs]
    rows: dict[str, list[object]] = {name: [] for name in (
        "run", "metric", "difference", "low", "high", "tiles", "left_out", "only_first_right",
        "only_this_right", "p_mcnemar",
    )}  # fmt: skip
    drawn: dict[str, dict[str, estimates.Estimate]] = {}
    over = plural(how.resample)
    for run, table in zip(runs[1:], tables[1:], strict=True):
        pair = paired(tables[0], table, how.resample)
        found = comparison.differences(
            pair.target, pair.one, pair.other, pair.unit, pair.names, how.ordered, how.seed
        )
        test = comparison.mcnemar(pair.target, pair.one.argmax(axis=1), pair.other.argmax(axis=1))
        for metric, figure in found.items():
            values = (run, metric, figure.value, figure.low, figure.high, len(pair.target),
                      pair.left_out, *test)  # fmt: skip
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
        drawn[run] = {metric: found[metric] for metric in SHOWN if metric in found}
        show(run, drawn[run], pair, test, over, console)
    output.mkdir(parents=True, exist_ok=True)
    write_parquet(output / "comparison.parquet", pa.table(rows))
    differences_png(output / "comparison.png", runs[0], {
        run: {name: (f.value, f.low, f.high) for name, f in own.items()}
        for run, own in drawn.items()
    }, over)  # fmt: skip
    console.print(f"written: {output / 'comparison.parquet'}, {output / 'comparison.png'}")


def paired(one: pa.Table, other: pa.Table, resample: str = "slide_id") -> Pair:
    """Return the predictions for the tiles that both have and that have a label.

    Raises
    ------
    SchemaError
        They are of other classes, disagree about the label of a tile, or lack the column to
        resample.
    EmptyViewError
        They have no tile in common.
    """
    names, theirs = (
        [c.removeprefix("prob_") for c in table.column_names if c.startswith("prob_")]
        for table in (one, other)
    )
    if names != theirs:
        raise SchemaError(
            "The runs know other classes", found=f"{', '.join(names)}; {', '.join(theirs)}",
            fix="compare runs of the same classes",
        )  # fmt: skip
    if resample not in one.column_names:
        there = [name for name in one.column_names if not name.startswith("prob_")]
        raise SchemaError(
            f"The predictions have no column {resample!r} to resample",
            found=", ".join(there),
            fix="name one of them, or fit again with it in evidence.resample or evidence.groups",
        )
    wanted = list(dict.fromkeys([*KEY, "target", resample]))
    first = one.select(wanted).append_column("one", pa.array(np.arange(len(one))))
    second = other.select([*KEY, "target"]).append_column("other", pa.array(np.arange(len(other))))
    both = first.join(second, KEY, join_type="inner", right_suffix="_other").sort_by(
        [(key, "ascending") for key in KEY]
    )
    both = both.filter(pa.compute.is_valid(both["target"]))
    if not len(both):
        raise EmptyViewError(
            "The runs have no labelled tile in common",
            found=f"{len(one):,} and {len(other):,} tiles",
            fix="compare runs that validated on the same fold, or were tested on the same tiles",
        )
    target = both["target"].to_numpy()
    unlike = int((target != both["target_other"].to_numpy()).sum())
    if unlike:
        raise SchemaError(
            "The runs disagree about labels", found=f"{unlike:,} of {len(both):,} tiles",
            fix="compare runs under the same rules",
        )  # fmt: skip
    shares = [
        np.stack([table[f"prob_{name}"].to_numpy() for name in names], axis=1)[both[row].to_numpy()]
        for table, row in ((one, "one"), (other, "other"))
    ]
    left_out = len(one) + len(other) - 2 * len(both)
    return Pair(target, encode_clusters(both, resample)[0], shares[0], shares[1], names, left_out)


def show(
    run: str,
    found: dict[str, estimates.Estimate],
    pair: Pair,
    test: tuple[int, int, float],
    over: str,
    console: Console,
) -> None:
    """Print the differences that people look for first."""
    table = pa.table(
        {
            "metric": list(found),
            "difference": [f"{figure.value:+.4f}" for figure in found.values()],
            f"95 % over {over}": [f"{f.low:+.4f} .. {f.high:+.4f}" for f in found.values()],
        }
    )
    print_table(table, console, f"{run}, {len(pair.target):,} tiles")
    alone, others, p = test
    console.print(f"right on alone: first {alone:,}, this {others:,} tiles; McNemar p = {p:.3g}")
    if pair.left_out:
        console.print(f"left out, having no counterpart: {pair.left_out:,} tiles")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
