"""Compare runs on the same tiles: what differs, by how much, and whether slides agree on it.

    python train/compare.py RUN RUN [RUN ...]
    python train/compare.py models:/tissue-probe/1 models:/tissue-probe/2 --output comparison
    python train/compare.py a/predictions.parquet b/predictions.parquet --resample patient_id

Each is the id of a run, a models:/ URI (its run's predictions), or what a run has written: a file,
or the folder of mode=predict.
The first is what the others are compared with. Differences have 95 % intervals over slides, each
left out of both at once (or patients, if the predictions have that column, as those of runs with
evidence.resample or evidence.groups do); a permutation test over slides is beside them.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from featurestore.console.tables import print_table
from featurestore.errors import ArtifactError, FeatureStoreError
from featurestore.io.names import resolved_once
from featurestore.printing import Console, print_error
from featurestore.spec import bounds
from featurestore.spec.bounds import SEEDS
from train.evaluation.comparison import PermutationTest, differences, permutation_test
from train.evaluation.estimates import Estimate
from train.evaluation.metrics import shown_in
from train.evaluation.pairing import Pair, paired
from train.plots.evaluation import differences_png
from train.predictions.files import predictions, resolved, write_parquet
from train.predictions.table import plural


@dataclass(frozen=True)
class ComparisonSettings:
    """How runs are compared.

    Parameters
    ----------
    seed
        Of the exchanges of a permutation test.
    resample
        Column of the predictions whose values are the units of intervals and test.
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
        settings = ComparisonSettings(options.seed, options.resample, options.ordered)
        with resolved_once():
            compare(options.runs, options.uri, options.output, settings, Console())
    except FeatureStoreError as error:
        print_error(error)
        return 2
    return 0


def compare(
    runs: list[str], uri: str | None, output: Path, settings: ComparisonSettings, console: Console
) -> None:
    """Print and write the comparison of the first run with each of the others."""
    if len(runs) < 2:
        raise ArtifactError(
            "One run alone cannot be compared", found=runs[0], fix="name at least two"
        )
    runs = [resolved(run, uri) for run in runs]
    tables = [predictions(run, uri) for run in runs]
    rows: list[dict[str, object]] = []
    differing: dict[str, dict[str, Estimate]] = {}
    for run, table in zip(runs[1:], tables[1:], strict=True):
        pair = paired(tables[0], table, settings.resample)
        by_metric = differences(pair.one, pair.other, settings.ordered)
        test = permutation_test(pair.one, pair.other, settings.seed)
        counts = {"tiles": len(pair.one), "left_out": pair.left_out}
        tests = {"only_first_right": test.only_one, "only_this_right": test.only_other,
                 "p_permutation": test.p}  # fmt: skip
        for metric, difference in by_metric.items():
            ends = dict(zip(("difference", "low", "high"), difference.ends, strict=True))
            rows.append({
                "run": run, "metric": metric, **ends, "units": difference.units, **counts, **tests
            })  # fmt: skip
        differing[run] = {
            name: by_metric[name] for name in shown_in("compare", ordered=settings.ordered)
        }
        show(run, differing[run], pair, test, console)
    output.mkdir(parents=True, exist_ok=True)
    write_parquet(output / "comparison.parquet", pa.Table.from_pylist(rows))
    differences_png(output / "comparison.png", runs[0], differing, plural(settings.resample))
    console.print(f"written: {output / 'comparison.parquet'}, {output / 'comparison.png'}")


def show(
    run: str,
    differing: Mapping[str, Estimate],
    pair: Pair,
    test: PermutationTest,
    console: Console,
) -> None:
    """Print the differences that people look for first."""
    table = pa.table(
        {
            "metric": list(differing),
            "difference": [f"{each.value:+.4f}" for each in differing.values()],
            f"95 % over {pair.one.cluster_name}": [
                each.text(4, "+") if each.has_interval else "" for each in differing.values()
            ],
        }
    )
    print_table(table, console, f"{run}, {len(pair.one):,} tiles")
    console.print(
        f"right on alone: first {test.only_one:,}, this {test.only_other:,} tiles; equally often "
        f"right: p = {test.p:.3g} ({pair.one.clusters} {pair.one.cluster_name} exchanged)"
    )
    if pair.left_out:
        console.print(f"left out, having no counterpart: {pair.left_out:,} tiles")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
