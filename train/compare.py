"""Compare runs on the same tiles: what differs, by how much, and whether slides agree on it.

    python train/compare.py RUN RUN [RUN ...]
    python train/compare.py models:/tissue-probe/1 models:/tissue-probe/2 output=comparison
    python train/compare.py a/predictions.parquet b/predictions.parquet evidence.resample=patient_id

Each is the id of a run, a models:/ URI (its run's predictions), or what a run has written: a file,
or the folder of mode=predict.
The first is what the others are compared with. Differences have 95 % intervals over slides, each
left out of both at once (or patients, if the predictions have that column, as those of runs with
evidence.resample or evidence.groups do); a permutation test over slides is beside them. Tiles that
only one of them predicted are left out, with the reasons; where most are, or the runs were trained
on other folds, nothing is compared unless told to.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import ArtifactError
from featurestore.printing import Console
from featurestore.spec.bounds import SEEDS
from train.config.help import help_or_refuse, keys, run_command
from train.config.load import small
from train.config.schema import doc
from train.config.sections import Server

EXAMPLE = "RUN RUN output=comparison"
BETTER = {True: "higher", False: "lower"}


@dataclass
class Evidence:
    """How differences are judged."""

    resample: str = field(
        default="slide_id",
        metadata=doc("column of the predictions that intervals and test are over: patient_id"),
    )
    ordered: bool = field(default=False, metadata=doc("the order of classes means something"))


@dataclass
class Request:
    """How runs are compared."""

    output: str = field(default="comparison", metadata=doc("folder of table and picture"))
    evidence: Evidence = field(default_factory=Evidence, metadata=doc("intervals"))
    seed: int = field(default=0, metadata=doc("of the exchanges of the permutation test", SEEDS))
    least_overlap: float = field(
        default=0.5, metadata=doc("least share of each run's tiles that is compared", "[0, 1]")
    )
    other_folds: bool = field(
        default=False, metadata=doc("compare runs that were trained on other folds")
    )
    tracking: Server = field(default_factory=Server, metadata=doc("MLflow"))


def understood(argv: Sequence[str]) -> tuple[list[str], Request]:
    """Return the runs that are named, and how they are to be compared.

    Raises
    ------
    ConfigError
        A ``key=value`` is not understood.
    ArtifactError
        There is nothing to compare.
    """
    runs = [word for word in argv if "=" not in word[1:] or Path(word).exists()]
    runs = [word for word in runs if not word.startswith("--")]
    request = small(Request, [word for word in argv if word not in runs], EXAMPLE)
    if len(runs) < 2:
        raise ArtifactError(
            "One run alone cannot be compared", found=" ".join(runs) or "no run",
            fix="name at least two",
        )  # fmt: skip
    return runs, request


def usage() -> str:
    """Return the help: what is compared how, and the keys."""
    return "\n".join([(__doc__ or "").strip(), "", *keys(Request)])


# Help and refused arguments must not wait for MLflow, SciPy and matplotlib to be imported.
if __name__ == "__main__":
    help_or_refuse(sys.argv[1:], usage, understood)

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from featurestore.console.tables import print_field, print_table
from featurestore.errors import EmptyViewError, FoldError, JoinError
from featurestore.io.names import resolved_once
from train.evaluation.comparison import PermutationTest, differences, permutation_test
from train.evaluation.estimates import Estimate
from train.evaluation.metrics import is_higher_better, shown_in
from train.evaluation.pairing import Pair, paired
from train.plots.evaluation import differences_png
from train.predictions.files import all_predictions, resolved, write_parquet
from train.predictions.table import plural
from train.tracking.compared import Compared, fold_differences, look_up


def main(argv: Sequence[str]) -> int:
    """Compare runs; return the exit status, 2 after a refusal."""
    return run_command(argv, usage, work)


def work(argv: list[str]) -> int:
    """Compare what the arguments name."""
    runs, request = understood(argv)
    with resolved_once():
        compare(runs, request, Console())
    return 0


def compare(runs: list[str], request: Request, console: Console) -> None:
    """Print and write the comparison of the first run with each of the others."""
    uri = request.tracking.uri
    sides = [look_up(resolved(run, uri), uri) for run in runs]
    for other in sides[1:]:
        check_folds(sides[0], other, request)
    rows: list[dict[str, Any]] = []
    differing: dict[str, dict[str, Estimate]] = {}
    pairs = pairs_of(sides[0].run, [side.run for side in sides[1:]], request)
    for side, pair in zip(sides[1:], pairs, strict=True):
        check_pair(sides[0], side, pair, request)
    for side, pair in zip(sides[1:], pairs, strict=True):
        by_metric = differences(pair.one, pair.other, request.evidence.ordered)
        test = permutation_test(pair.one, pair.other, request.seed)
        rows += rows_of(side, by_metric, pair, test)
        differing[side.title] = {
            name: by_metric[name] for name in shown_in("compare", ordered=request.evidence.ordered)
        }
        show((sides[0], side), differing[side.title], pair, test, console)
    output = Path(request.output)
    output.mkdir(parents=True, exist_ok=True)
    write_parquet(output / "comparison.parquet", pa.Table.from_pylist(rows))
    picture = output / "comparison.png"
    differences_png(picture, sides[0].title, differing, plural(request.evidence.resample))
    print_field("written", f"{output / 'comparison.parquet'}, {picture}", console, indent=0)


def pairs_of(run: str, others: Sequence[str], request: Request) -> list[Pair]:
    """Return what a run and each of others have predicted of the same tiles.

    Tiles that one has held out the other may have predicted out of fold: where the predictions that
    each is judged by are of other tiles, all that they have are looked through.

    Raises
    ------
    EmptyViewError
        None of them have a tile in common.
    """
    pairs: dict[str, Pair] = {}
    refusals: dict[str, EmptyViewError] = {}
    for predictions in all_predictions(run, request.tracking.uri):
        for other in [other for other in others if other not in pairs]:
            try:
                pairs[other] = pair_of(predictions, other, request)
            except EmptyViewError as error:
                refusals.setdefault(other, error)
        if pairs.keys() >= set(others):
            return [pairs[other] for other in others]
    raise next(refusals[other] for other in others if other not in pairs)


def pair_of(predictions: pa.Table, other: str, request: Request) -> Pair:
    """Return some predictions with those of another run for the same tiles.

    Raises
    ------
    EmptyViewError
        None of its predictions are of these tiles.
    """
    refusals = []
    for others in all_predictions(other, request.tracking.uri):
        try:
            return paired(predictions, others, request.evidence.resample)
        except EmptyViewError as error:
            refusals.append(error)
    raise refusals[0]


def check_folds(one: Compared, other: Compared, request: Request) -> None:
    """Refuse runs that were trained on other folds, unless told to compare them.

    Raises
    ------
    FoldError
        They were.
    """
    if request.other_folds or not (one.record and other.record):
        return
    if differing := fold_differences(one.record, other.record):
        raise FoldError(
            f"{one.title} and {other.title} were trained on other folds",
            found="; ".join(differing),
            fix="compare runs of the same folds; other_folds=true compares them on the tiles that "
            "both predicted",
        )


def check_pair(one: Compared, other: Compared, pair: Pair, request: Request) -> None:
    """Refuse a comparison that tells little of the runs, unless told to make it.

    Raises
    ------
    FoldError
        Tiles that both predicted are in other folds.
    JoinError
        Fewer than ``least_overlap`` of the tiles of one of them are compared.
    """
    if pair.refolded and not request.other_folds:
        raise FoldError(
            f"{one.title} and {other.title} were trained on other folds",
            found=f"{pair.refolded:,} of {len(pair.one):,} tiles are in another fold",
            fix="compare runs of the same folds; other_folds=true compares them all the same",
        )
    shares = (pair.of_one.share, pair.of_other.share)
    if min(shares) < request.least_overlap:
        raise JoinError(
            f"{one.title} and {other.title} predicted few tiles in common",
            found=f"{len(pair.one):,} tiles, {shares[0]:.1%} and {shares[1]:.1%} of theirs; "
            + "; ".join(pair.reasons(one.title, other.title)),
            fix="compare runs of the same tiles; least_overlap="
            f"{int(100 * min(shares)) / 100:g} compares them on these",
        )


def rows_of(
    side: Compared, by_metric: Mapping[str, Estimate], pair: Pair, test: PermutationTest
) -> list[dict[str, Any]]:
    """Return a row for each metric."""
    counts = {"tiles": len(pair.one), "left_out": pair.left_out}
    tests = {"only_first_right": test.only_one, "only_this_right": test.only_other,
             "p_permutation": test.p}  # fmt: skip
    rows = []
    for metric, difference in by_metric.items():
        ends = dict(zip(("difference", "low", "high"), difference.ends, strict=True))
        judgement = {
            "higher_is_better": is_higher_better(metric),
            "verdict": verdict(metric, difference),
        }
        rows.append({
            "run": side.run, "title": side.title, "metric": metric, **ends, **judgement,
            "units": difference.units, **counts, **tests,
        })  # fmt: skip
    return rows


def verdict(metric: str, difference: Estimate) -> str:
    """Return what the interval of a difference says of the run: better, worse, or neither."""
    if not difference.has_interval:
        return "no interval"
    if difference.low <= 0 <= difference.high:
        return "not told apart"
    return "better" if (difference.low > 0) == is_higher_better(metric) else "worse"


def show(
    sides: tuple[Compared, Compared],
    differing: Mapping[str, Estimate],
    pair: Pair,
    test: PermutationTest,
    console: Console,
) -> None:
    """Print the differences that people look for first, and what is left out."""
    first, this = (side.title for side in sides)
    table = pa.table(
        {
            "metric": list(differing),
            "difference": [f"{each.value:+.4f}" for each in differing.values()],
            f"95 % over {pair.one.cluster_name}": [
                each.text(4, "+") if each.has_interval else "" for each in differing.values()
            ],
            "better is": [BETTER[is_higher_better(metric)] for metric in differing],
            "verdict": [verdict(metric, each) for metric, each in differing.items()],
        }
    )
    print_table(table, console, f"{this} above {first}, {len(pair.one):,} tiles")
    counts = f"{first} {test.only_one:,}, {this} {test.only_other:,} tiles; equally often right"
    over = f"{pair.one.clusters} {pair.one.cluster_name} exchanged"
    print_field("right on alone", f"{counts}: p = {test.p:.3g} ({over})", console, indent=0)
    for reason in pair.reasons(first, this):
        print_field("left out", reason, console, indent=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
