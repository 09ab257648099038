"""What a run records of predictions that have been evaluated."""

from pathlib import Path

from featurestore.console.tables import print_table
from train.evaluation.evaluate import Evaluation, evaluation_metrics
from train.evaluation.groups import as_table, worst_groups
from train.evaluation.jackknife import METHOD
from train.plots.evaluation import evaluation_pngs, groups_png
from train.predictions.files import write_json
from train.reports import printed, results
from train.reports.html import Page
from train.runtime.run import Run
from train.tracking.names import encode_name
from train.tracking.runs import INTERVALS


def record(run: Run, page: Page, evaluation: Evaluation, split: str, prefix: str) -> None:
    """Record metrics with intervals, tables and pictures; print what people look at first.

    Parameters
    ----------
    split
        Of what: metrics are named ``best/<split>/...``.
    prefix
        Begins the names of files.
    """
    printed.lone_slides(run.console, evaluation, split)
    run.tracker.params({INTERVALS: METHOD})
    run.tracker.metrics(evaluation_metrics(evaluation, split))
    run.tracker.table(results.estimates_table(evaluation), f"{prefix}evidence.json")
    run.tracker.table(evaluation.confusions, f"{prefix}confusions.json")
    run.tracker.table(evaluation.slides, f"{prefix}slides.json")
    results.add_metrics(page, evaluation, split)
    results.add_failures(page, evaluation, split)
    if run.visible:
        confusion, *others = evaluation_pngs(evaluation, run.folder, split, prefix)
        _picture(run, page, confusion)
        for picture in others:
            _picture(run, page, picture, "evidence")
    printed.metrics(run.answers, evaluation, split)
    printed.notes(run.console, evaluation)
    if evaluation.groups:
        _groups(run, page, evaluation, split, prefix)


def _groups(run: Run, page: Page, evaluation: Evaluation, split: str, prefix: str) -> None:
    """Record groups: all in one table; those that are shown with a picture and in print."""
    table, clusters = as_table(evaluation.groups), evaluation.predictions.cluster_name
    run.tracker.table(table, f"{prefix}groups.json")
    write_json(run.folder / f"{prefix}groups.json", table)
    for column in dict.fromkeys(group.column for group in evaluation.groups):
        groups = [group for group in evaluation.groups if group.column == column]
        largest = [group for group in groups if group.is_shown]
        if run.visible:
            file = run.folder / f"{prefix}groups_{encode_name(column)}.png"
            _picture(run, page, groups_png(file, largest, evaluation.metrics, clusters), "evidence")
        title = f"{split} by {column}, the worst first; 95 % over {clusters}"
        print_table(worst_groups(largest), run.console, title)
        results.add_groups(page, title, worst_groups(largest))
        if len(groups) > len(largest):
            run.console.print(
                f"{column} has {len(groups):,} values, all in {prefix}groups.json; intervals, "
                f"metrics and picture are of the {len(largest)} with the most tiles"
            )


def _picture(run: Run, page: Page, file: Path, folder: str | None = None) -> None:
    run.tracker.file(file, folder)
    results.add_picture(page, file)
