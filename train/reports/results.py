"""What a run says on its page of its model, its figures and its failures.

The parts of a run call these as they find out, beside what they record.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.io.atomic import write_bytes
from train.config import text
from train.config.schema import Config
from train.evaluation import metrics
from train.evaluation.confusion import slide_accuracy
from train.evaluation.estimates import Estimate
from train.models.checkpoint import ModelSpec
from train.predictions.table import encode_slides
from train.reports import inputs
from train.reports.html import FILE, Headline, Page, Picture, Table, Text, html
from train.runtime.run import Run
from train.tracking.names import decode_name

WORST, SUREST = 10, 20  # slides and errors that are listed
PICTURES = {
    "classes": ("good", "F1 by class"),
    "confusion": ("good", "True and predicted classes"),
    "curves": ("good", "Curves of each class against the others"),
    "reliability": ("good", "How sure predictions are, and how often right"),
    "risk_coverage": ("good", "Errors left if only the surest predictions are given"),
    "settings": ("good", "Settings side by side"),
    "slides": ("fails", "Accuracy of every slide"),
}
"""By the names of their files: the section that shows a picture, and what it shows."""
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "kappa": "Cohen's kappa",
    "kappa_quadratic": "Cohen's kappa, quadratic",
    "auroc_macro": "area under ROC, macro",
    "average_precision_macro": "average precision, macro",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
SPLITS = {"oof": "out of fold"}
"""What a split is called for people, if otherwise than in the names of metrics."""


# -- how good, and where it fails -----------------------------------------------------------------


def figures(
    page: Page,
    split: str,
    found: Mapping[str, Estimate],
    table: pa.Table,
    classes: list[str],
    over: str,
) -> None:
    """Tell how good predictions are, overall and by class.

    Parameters
    ----------
    found
        As `train.evaluation.estimates.estimate` returns them.
    table
        The predictions, see `train.predictions.table.predictions`.
    over
        What the intervals resample.
    """
    name, ends = SPLITS.get(split, split), f"95 % over {over}"
    whole = {key: figure for key, figure in found.items() if "/" not in key}
    slides = len(table["slide_id"].unique())
    page.add("good", Table(f"Figures, {name}", {
        "figure": [TITLES.get(key, key) for key in whole],
        "value": [figure.value for figure in whole.values()],
        ends: [between(figure) for figure in whole.values()],
    }, f"{len(table):,} tiles of {slides:,} slides. An interval resamples {over}, whose tiles "
        "resemble each other; of errors (Brier, calibration) less is better.",
        strip=[strip(figure) for figure in whole.values()]))  # fmt: skip
    tiles = np.bincount(table["target"].to_numpy(), minlength=len(classes)).tolist()
    f1 = [found[f"f1/{own}"] for own in classes]
    kinds = {"auroc": "area under ROC", "average_precision": "average precision"}
    page.add("good", Table(f"By class, {name}", {
        "class": classes, "tiles": tiles,
        "recall": [found[f"recall/{own}"].value for own in classes],
        **{title: [found[f"{kind}/{own}"].value for own in classes]
           for kind, title in kinds.items()},
        "F1": [figure.value for figure in f1],
        ends: [between(figure) for figure in f1],
    }, strip=[strip(figure) for figure in f1]))  # fmt: skip
    page.headlines[:0] = [
        Headline(f"{title}, {name}", f"{found[key].value:.3f}", between(found[key], 3))
        for key, title in (("f1_macro", "Macro F1"), ("accuracy", "Accuracy"))
    ]


def groups(page: Page, title: str, shown: pa.Table) -> None:
    """Tell how good predictions are by group, see `train.evaluation.groups.shown`."""
    page.add("fails", Table(title, shown.to_pydict()))


def failures(
    page: Page,
    split: str,
    table: pa.Table,
    classes: list[str],
    most: Mapping[str, list[Any]],
    over: str,
) -> None:
    """Tell the worst slides, the errors that it is surest of, and what is taken for what.

    Parameters
    ----------
    table
        Predictions of tiles with labels, see `train.predictions.table.predictions`.
    most
        As `train.evaluation.metrics.confusions` returns them.
    over
        What their intervals resample.
    """
    name = SPLITS.get(split, split)
    target, predicted = table["target"].to_numpy(), table["pred"].to_numpy()
    number, slides = encode_slides(table)
    cube = metrics.cube(target, predicted, number, len(classes))
    worst = {key: values[:WORST] for key, values in slide_accuracy(cube, slides).items()}
    worst["taken for another"] = [
        confused(cube[slides.index(slide)], classes) for slide in worst["slide_id"]
    ]
    page.add("fails", Table(f"Worst slides, {name}", worst))
    shares = np.stack([table[f"prob_{own}"].to_numpy() for own in classes], axis=1)
    wrong = np.flatnonzero(predicted != target)
    sure = shares[wrong, predicted[wrong]]
    order = np.argsort(-sure, kind="stable")[:SUREST]
    rows = wrong[order]
    keys = table.select(["slide_id", "x", "y"]).take(pa.array(rows)).to_pydict()
    keys |= {axis: list(map(str, keys[axis])) for axis in "xy"}  # to be copied: without commas
    page.add("fails", Table(f"Errors that it is surest of, {name}", {
        **keys,
        "true": [classes[index] for index in target[rows]],
        "predicted": [classes[index] for index in predicted[rows]],
        "probability": sure[order].astype(float).tolist(),
        "of the true class": shares[rows, target[rows]].astype(float).tolist(),
    }, f"{len(wrong):,} of {len(table):,} tiles are predicted wrongly; at most {SUREST} are "
        "listed."))  # fmt: skip
    ends = zip(most["low"], most["high"], strict=True)
    page.add("fails", Table(f"Taken for another, {name}", {
        **{key: most[key] for key in ("true", "predicted", "tiles", "units")},
        "share of true": [f"{share:.1%}" for share in most["share_of_true"]],
        f"95 % over {over}": [
            f"{low:.1%} – {high:.1%}" if np.isfinite(low) else "" for low, high in ends
        ],
    }))  # fmt: skip


def confused(confusion: Any, classes: list[str]) -> str:
    """Return what is taken for what most often, for people."""
    most = metrics.confused(confusion, classes)
    return f"{most[0]} for {most[1]} ({most[2]:,})" if most else ""


def settings(
    page: Page,
    name: str,
    columns: Mapping[str, list[Any]],
    pictures: Sequence[Path],
    gap: float | None,
    over: str,
) -> None:
    """Tell how good the settings are that were trained side by side.

    Parameters
    ----------
    name
        Of the best.
    columns
        As `train.fitting.pack.table_columns` returns them.
    gap
        As `train.fitting.pack.leak_gap` returns it.
    over
        What the intervals resample.
    """
    ends = list(zip(columns["f1_macro"], columns["low"], columns["high"], strict=True))
    intervals = [between(Estimate(*one)) for one in ends]
    hidden = ("low", "high", "loss", "best")
    shown = {TITLES.get(key, key): columns[key] for key in columns if key not in hidden}
    note = "Means over the folds, sd their standard deviation."
    if len(ends) > 1:
        note += " The best was chosen by the figures that stand here: another set tells how good "
        note += "it is."
        page.add(
            "model", Text(f"Of {len(ends)} settings, the best by out-of-fold macro F1: {name}.")
        )
    page.add("good", Table("Settings", {
        **shown, f"95 % over {over}": intervals, "": columns["best"],
    }, note, strip=ends))  # fmt: skip
    if gap is not None:
        page.add("good", Text(f"Leak gap: {gap:+.4f} macro F1 where folds share slides."))
    for file in pictures:
        picture(page, file)


def between(figure: Estimate, digits: int = 4) -> str:
    """Return an interval for people, nothing if there is none."""
    if not np.isfinite(figure.low):
        return ""
    return f"{figure.low:.{digits}f} – {figure.high:.{digits}f}"


def strip(figure: Estimate) -> tuple[float, float, float]:
    """Return a figure as it is drawn."""
    return figure.value, figure.low, figure.high


def picture(page: Page, file: Path) -> None:
    """Show a picture that the run has drawn, as it is now."""
    kind = decode_name(file.stem.removeprefix("oof_"))
    section, caption = PICTURES.get(kind, ("good", kind.replace("groups_", "By ")))
    page.add(section, Picture(caption, file.read_bytes()))


# -- model, and all of it -------------------------------------------------------------------------


def model(page: Page, config: Config, blueprint: ModelSpec | None, uri: str | None) -> None:
    """Tell what was trained, how, and where it is registered."""
    how: dict[str, Any] = {"head": config.head, "probe": config.probe}
    how |= {"normalize": config.normalize, "precision": config.precision}
    if config.mode != "fit":
        how = {"checkpoint": config.checkpoint}
    elif config.probe == "logistic":
        names = ("optimizer", "learning_rate", "weight_decay", "label_smoothing", "batch_size")
        how |= {name: getattr(config, name) for name in (*names, "max_epochs", "patience")}
    if blueprint:
        how |= {
            "embedding": f"{blueprint.dim} numbers",
            "temperature": f"{blueprint.temperature:.4g}",
        }
        if config.mode != "fit":
            how |= {"head": blueprint.head, "normalize": blueprint.normalize}
    how["model"] = uri or "none registered"
    page.add("model", Table("How it is made", {
        "what": list(how), "value": [str(value) for value in how.values()]
    }))  # fmt: skip
    classes = blueprint.classes if blueprint else config.class_names
    weights = blueprint.weights if blueprint else [None] * len(classes)
    page.add("model", Table("Classes", {
        "class": classes,
        "index": list(range(len(classes))),
        "least coverage": [config.thresholds.get(name) for name in classes],
        "weight in the loss": list(weights),
    }, f"Least sum of coverages {config.tissue_prop_min}; label rule {config.label_rule}; "
        f"tiles of several classes {'dropped' if config.single_class else 'kept'}."))  # fmt: skip
    kind = config.head if config.probe == "logistic" else config.probe
    page.headlines.append(Headline("Model", kind, uri or "none registered"))
    page.add("model", Text(
        text.text(config), "The whole configuration", code=True, folded=True
    ))  # fmt: skip


def close(session: Run, blueprint: ModelSpec | None, uri: str | None) -> None:
    """Finish the page; write it, and record it."""
    if not session.tracker.records and session.config.output is None:
        return  # for nobody
    page, config = session.page, session.config
    page.title = text.run_name(config)
    when = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    of = session.tracker.run
    fold = "" if config.fold is None else f"fold {config.fold} · "
    page.subtitle = f"{config.data.name} · {fold}{when} · " + (f"run {of}" if of else "not tracked")
    model(page, config, blueprint, uri)
    inputs.again(page, session, uri)
    file = session.folder / FILE
    write_bytes(file, html(page).encode())
    session.tracker.file(file)
