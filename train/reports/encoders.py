"""What a run reports of several encoders that were trained on the same tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pyarrow as pa

from featurestore.console.tables import print_table
from featurestore.redaction import redacted
from featurestore.snapshots.snapshot import Snapshot
from train.evaluation.estimates import Estimate
from train.evaluation.evaluate import with_ends
from train.evaluation.leaderboard import RANKED_BY, Entry, Leaderboard, leaderboard
from train.evaluation.metrics import METRICS, shown_in
from train.models.training import Training
from train.plots.encoders import encoders_png
from train.predictions.files import write_json
from train.predictions.table import Predictions
from train.reports.html import Headline, Page, Picture, Table
from train.reports.results import SPLITS
from train.runtime.run import Run

BOARD, DIFFERENCES, PICTURE = "leaderboard.json", "differences.json", "encoders.png"
TEST = "test"

Evaluated = tuple[Predictions, Mapping[str, Estimate]]
"""Predictions of a split, and their metrics."""
Facts = Mapping[str, Mapping[str, Any]]
"""Of each encoder, what is known of it: its artifact, its model, its run."""


def record(
    run: Run, page: Page, evaluated: Mapping[str, Mapping[str, Evaluated]], facts: Facts
) -> str:
    """Print, record and show encoders side by side; return the best.

    Parameters
    ----------
    evaluated
        By encoder and split; the first split decides which encoder is the best.
    """
    evidence, tracker = run.config.evidence, run.tracker
    boards = [
        leaderboard(
            split,
            [Entry(name, *of_encoder[split]) for name, of_encoder in evaluated.items()],
            run.config.seed,
            evidence.ordered,
        )
        for split in next(iter(evaluated.values()))
    ]
    best = boards[0].entries[0].encoder
    tables = {
        BOARD: joined([leaderboard_table(board, facts) for board in boards]),
        DIFFERENCES: joined([differences_table(board) for board in boards]),
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        tracker.table(table, name)
        write_json(run.folder / name, table)
    tracker.params({"best_encoder": best})
    known = {key: [of_encoder[key] for of_encoder in facts.values()] for key in facts[best]}
    page.add("data", Table("Encoders", {"encoder": list(facts), **known}, folded=True))
    for board in boards:
        tracker.metrics(metrics(board))
        add_to_page(page, board)
        if tracker.records or run.config.output:
            picture = encoders_png(run.folder / f"{file_prefix(board)}{PICTURE}", board)
            tracker.file(picture)
            page.add("good", Picture(f"Encoders, {split_title(board)}", picture.read_bytes()))
        print_board(run, board)
    value = boards[0].entries[0].metrics[RANKED_BY]
    detail = f"macro F1 {value.value:.3f}, {value.text(3)}"
    page.headlines.insert(0, Headline("Best encoder", best, detail))
    return best


def facts(run: Run, snapshot: Snapshot, model: str | None) -> dict[str, Any]:
    """Return what is known of one encoder: its artifact, what was made of it, its model, its run.

    Parameters
    ----------
    run
        That of the encoder, below the one of all.
    model
        The URI of the model.
    """
    embeddings, name = run.config.data.embeddings, run.config.data.encoder
    assert isinstance(embeddings, dict)
    assert name
    return {
        "embeddings": redacted(embeddings[name]),
        "numbers": snapshot.manifest["cohorts"]["tiles"]["dim"],
        "snapshot": snapshot.digest[:16],
        "model": model or "",
        "run": run.tracker.run or "",
    }


def file_prefix(board: Leaderboard) -> str:
    """Return the prefix of the names of a split's files."""
    return "test_" if board.split == TEST else ""


def split_title(board: Leaderboard) -> str:
    """Return what a split is called for people."""
    return SPLITS.get(board.split, board.split)


def leaderboard_table(board: Leaderboard, facts: Facts) -> dict[str, list[Any]]:
    """Return a row for each encoder, the best first: what it is, and its metrics with intervals."""
    entries = board.entries
    columns: dict[str, list[Any]] = {
        "split": [board.split] * len(entries),
        "rank": list(range(1, len(entries) + 1)),
        "encoder": [entry.encoder for entry in entries],
    }
    for fact in next(iter(facts.values())):
        columns[fact] = [facts[entry.encoder][fact] for entry in entries]
    columns["tiles"] = [board.tiles] * len(entries)
    for name in shown_in("compare"):
        if name in entries[0].metrics:
            ends = zip(*(entry.metrics[name].ends for entry in entries), strict=True)
            columns |= {
                f"{name}{end}": list(values)
                for end, values in zip(("", "_low", "_high"), ends, strict=True)
            }
    return columns


def differences_table(board: Leaderboard) -> dict[str, list[Any]]:
    """Return a row for each pair and metric: by how much the first is above the other."""
    rows = [
        (board.split, each.encoder, each.other, metric, *estimate.ends, estimate.units,
         each.test.only_other, each.test.only_one, each.test.p)
        for each in board.differences
        for metric, estimate in each.metrics.items()
    ]  # fmt: skip
    names = ("split", "encoder", "other", "metric", "difference", "low", "high", "units",
             "only_encoder_right", "only_other_right", "p_permutation")  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return {name: list(values) for name, values in zip(names, columns, strict=True)}


def joined(tables: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the rows of tables with the same columns, one table after another."""
    return {name: list(chain(*(table[name] for table in tables))) for name in tables[0]}


def metrics(board: Leaderboard) -> dict[str, float]:
    """Return the main metrics and differences by the names that they have in MLflow.

    Returns
    -------
    dict
        ``encoder/<name>/<split>/f1_macro``, ``difference/<name>/<other>/<split>/f1_macro_low`` and
        so on: what is a number.
    """
    shown = shown_in("compare")
    sides = {f"encoder/{entry.encoder}": entry.metrics for entry in board.entries}
    sides |= {f"difference/{each.encoder}/{each.other}": each.metrics for each in board.differences}
    values: dict[str, float] = {}
    for side, of_side in sides.items():
        main = with_ends({name: of_side[name] for name in shown if name in of_side})
        values |= {f"{side}/{board.split}/{name}": value for name, value in main.items()}
    return values


def add_to_page(page: Page, board: Leaderboard) -> None:
    """Add to the page how good the encoders are, and by how much they differ."""
    entries, name = board.entries, split_title(board)
    over = entries[0].predictions.cluster_name
    f1 = [entry.metrics[RANKED_BY] for entry in entries]
    others = ("accuracy", "balanced_accuracy", "kappa")
    page.add("good", Table(f"Encoders, {name}", {
        "encoder": [entry.encoder for entry in entries],
        **{METRICS[key].title: [entry.metrics[key].value for entry in entries] for key in others},
        METRICS[RANKED_BY].title: [estimate.value for estimate in f1],
        f"95 % over {over}": [estimate.text(4) for estimate in f1],
    }, f"The best first, by macro F1 on {board.tiles:,} tiles: those that all encoders have, under "
        "the same folds. That a figure is the best of several makes it look a little better than "
        "it is.", strip=[estimate.ends for estimate in f1]))  # fmt: skip
    if board.differences:
        pairs = [(each, each.metrics[key]) for each in board.differences
                 for key in (RANKED_BY, *others)]  # fmt: skip
        keys = [METRICS[key].title for _ in board.differences for key in (RANKED_BY, *others)]
        page.add("good", Table(f"Differences between encoders, {name}", {
            "encoder": [each.encoder for each, _ in pairs],
            "above": [each.other for each, _ in pairs],
            "figure": keys,
            "difference": [f"{estimate.value:+.4f}" for _, estimate in pairs],
            f"95 % over {over}": [estimate.text(4, "+") for _, estimate in pairs],
            "p, equally often right": [each.test.p for each, _ in pairs],
        }, f"Paired: each of the {over} is left out of both encoders at once. {DIFFERENCES} has "
            "all figures."))  # fmt: skip


def print_board(run: Run, board: Leaderboard) -> None:
    """Print the leaderboard, and by how much each pair differs."""
    entries, title = board.entries, METRICS[RANKED_BY].title
    over, name = entries[0].predictions.cluster_name, split_title(board)
    print_table(pa.table({
        "encoder": [entry.encoder for entry in entries],
        title: [f"{entry.metrics[RANKED_BY].value:.4f}" for entry in entries],
        f"95 % over {over}": [entry.metrics[RANKED_BY].text(4) for entry in entries],
        "accuracy": [f"{entry.metrics['accuracy'].value:.4f}" for entry in entries],
    }), run.answers, f"encoders, {name}, {board.tiles:,} tiles")  # fmt: skip
    if board.differences:
        f1 = [each.metrics[RANKED_BY] for each in board.differences]
        print_table(pa.table({
            "encoder": [each.encoder for each in board.differences],
            "above": [each.other for each in board.differences],
            title: [f"{estimate.value:+.4f}" for estimate in f1],
            f"95 % over {over}": [estimate.text(4, "+") for estimate in f1],
            "p": [f"{each.test.p:.3g}" for each in board.differences],
        }), run.answers, "differences, on the same tiles")  # fmt: skip


def training_of_best(training: Training, tested: bool) -> Training:
    """Return how the best encoder's head was trained, and that the encoder was selected as well.

    Parameters
    ----------
    tested
        Whether there are figures of held-out tiles, which have selected none.
    """
    by = "highest macro F1 of the tiles that all encoders have"
    return replace(
        training,
        selection=training.selection | {"encoder": by},
        untouched="encoder/*/test/*" if tested and training.untouched else None,
    )
