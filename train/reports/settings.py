"""What a run records of settings that were trained side by side."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from featurestore.console.tables import print_table
from train.evaluation.evaluate import encode_metrics
from train.evaluation.metrics import METRICS
from train.fitting.settings import SettingResults, class_means, summary
from train.plots.settings import SettingPoint, axis_png, settings_png
from train.predictions.table import plural
from train.reports.html import Page, Table, Text
from train.reports.results import add_picture
from train.runtime.run import Run
from train.tracking.names import encode_name
from train.tracking.runs import FIGURES
from train.tracking.tracker import Step, Tracker


def record(run: Run, page: Page, trained: SettingResults) -> None:
    """Print the settings side by side; record each as a run of its own below this one."""
    tracker, clusters = run.tracker, plural(run.config.evidence.resample)
    print_table(trained.printed(clusters), run.answers, "settings")
    tracker.table(trained.columns(), "settings.json")
    if trained.curve:
        print_table(few_shot_table(trained, clusters), run.console, "few-shot curve")
        tracker.table(trained.few_shot(), "few_shot.json")
    pictures = draw_pictures(trained, run.folder, clusters)
    for file in pictures:
        tracker.file(file)
    add_to_page(page, trained, pictures, clusters)
    if (gap := trained.leak_gap()) is not None:
        tracker.metrics({"leak_gap/f1_macro": gap})
        run.console.print(f"leak gap: {gap:+.4f} macro F1 where folds share slides")
    for index in range(len(trained.settings)):
        record_child(tracker, trained, index, run.config.class_names)
    tracker.params({"best_setting": trained.settings[trained.best].name})
    best = summary(trained.scores[trained.best])
    tracker.metrics({f"best/{name}": value for name, value in best.items()})


def draw_pictures(trained: SettingResults, folder: Path, clusters: str) -> list[Path]:
    """Draw the settings side by side, and along each key that was swept."""
    points = [
        SettingPoint(setting.name, setting.overrides, tiles, score.mean("f1_macro"),
                     score.spread("f1_macro"), (score.f1_macro.low, score.f1_macro.high))
        for setting, score, tiles in zip(
            trained.settings, trained.scores, trained.tiles, strict=True
        )
    ]  # fmt: skip
    pictures = [settings_png(folder / "settings.png", points, trained.best, clusters)]
    if trained.curve:
        path, over = folder / "few_shot.png", f"{clusters} and draws"
        pictures.append(axis_png(path, "shots", few_shot_points(trained), over, "draws"))
    for key in points[0].overrides:
        if key not in ("shots", "draw") and len({point.overrides[key] for point in points}) > 1:
            pictures.append(axis_png(folder / f"{encode_name(key)}.png", key, points, clusters))
    return pictures


def few_shot_points(trained: SettingResults) -> list[SettingPoint]:
    """Return the points of the few-shot curve: each of all draws of its slides."""
    columns = trained.few_shot()
    figures = ("tiles", "f1_macro", "sd", "low", "high")
    keys = [key for key in columns if key not in ("draws", *figures)]
    return [
        SettingPoint("", dict(zip(keys, values, strict=True)), tiles, mean, sd, (low, high))
        for values, (tiles, mean, sd, low, high) in zip(
            zip(*(columns[key] for key in keys), strict=True),
            zip(*(columns[name] for name in figures), strict=True),
            strict=True,
        )
    ]


def few_shot_table(trained: SettingResults, clusters: str) -> pa.Table:
    """Return the few-shot curve for people: intervals over clusters and draws."""
    columns = trained.few_shot()
    mean_and_sd = zip(columns.pop("f1_macro"), columns.pop("sd"), strict=True)
    shown = {key: columns[key] for key in columns if key not in ("low", "high")}
    return pa.table({
        **shown,
        "macro F1": [f"{mean:.4f} ± {sd:.4f}" for mean, sd in mean_and_sd],
        f"95 % over {clusters} and draws": [score.f1_macro.text() for score in trained.curve],
    })  # fmt: skip


def add_to_page(
    page: Page, trained: SettingResults, pictures: Sequence[Path], clusters: str
) -> None:
    """Add to the page how good the settings are."""
    columns = trained.columns()
    f1 = [score.f1_macro for score in trained.scores]
    hidden = ("low", "high", "loss", "best")
    titles = {key: METRICS[key].title if key in METRICS else key for key in columns}
    note = "Means over the folds, sd their standard deviation; the interval is that of the mean."
    if len(f1) > 1:
        note += " The best was chosen by the figures that stand here: another set tells how good "
        note += "it is."
    page.add("good", Table("Settings", {
        **{titles[key]: values for key, values in columns.items() if key not in hidden},
        f"95 % over {clusters}": [estimate.text(4) for estimate in f1],
        "": columns["best"],
    }, note, strip=[estimate.ends for estimate in f1]))  # fmt: skip
    if trained.curve:
        page.add("good", Table(
            "Few-shot curve", few_shot_table(trained, clusters).to_pydict(),
            "Slides of each class, drawn anew each time; ± is the deviation over draws.",
            strip=[score.f1_macro.ends for score in trained.curve],
        ))  # fmt: skip
    if (gap := trained.leak_gap()) is not None:
        page.add("good", Text(f"Leak gap: {gap:+.4f} macro F1 where folds share slides."))
    for file in pictures:
        add_picture(page, file)


def record_child(
    tracker: Tracker, trained: SettingResults, index: int, classes: Sequence[str]
) -> None:
    """Record a setting as a run: its values, its metrics by class and fold, its losses by epoch."""
    setting, score, folds = trained.settings[index], trained.scores[index], trained.folds
    values = summary(score) | encode_metrics(class_means(score, classes), "mean/validation")
    for fold, metrics in zip(folds, score.folds, strict=True):
        values |= encode_metrics(metrics, f"fold{fold}/validation")
    for name, of_heads in trained.diagnostics.items():
        by_fold = of_heads.view(-1, len(folds))[index].tolist()
        numbers = {f"fold{fold}/{name}": v for fold, v in zip(folds, by_fold, strict=True)}
        values |= {key: v for key, v in numbers.items() if math.isfinite(v)}
    now = time.time()
    epochs = [
        Step(epoch, now, {"train/loss": training, "validation/loss": validation})
        for epoch, of_setting, training, validation in trained.losses
        if of_setting == index and math.isfinite(validation)
    ]
    with tracker.child(setting.name):
        tracker.params({**setting.overrides, "folds": folds, "best": index == trained.best})
        tracker.steps([Step(0, now, values), *epochs])
        tracker.table({"metric": [*values], "value": [*map(float, values.values())]}, FIGURES)
