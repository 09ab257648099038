"""What a run reports of how its model was trained: parameters, console and page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from featurestore.printing import Console
from featurestore.spec.trees import leaves
from train.config import text
from train.config.hyperparameters import unused
from train.config.schema import Config
from train.config.sweep import path_of, settings
from train.models.checkpoint import TrainedModel
from train.models.training import UNTOUCHED, Training
from train.reports.html import Headline, Page, Table
from train.tracking.names import encode_name

Path = tuple[str, ...]


def configured(config: Config) -> dict[str, Any]:
    """Return the parameters that are known before training.

    They are the keys that act. One that is swept is there as the list of ``sweep``: its own value
    is that which was trained, see `chosen`.
    """
    idle = {(key,) for key in unused(config)} | _swept(config)
    values = text.flat(config)
    return _named({path: value for path, value in values.items() if path not in idle})


def chosen(config: Config, training: Training) -> dict[str, Any]:
    """Return the parameters that training has decided: the best setting's values, and which head.

    Earlier parameters do not change: MLflow would refuse that.
    """
    values = dict(leaves(training.rules | training.settings))
    return _named({path: values[path] for path in _swept(config)}) | {
        "registered_head": training.head,
        "selected_by": "; ".join(f"{what}: {by}" for what, by in training.selection.items()),
        "untouched": training.verdict,
    }


def _swept(config: Config) -> set[Path]:
    return {path_of(key) for key in settings(config)[0].overrides}


def _named(values: Mapping[Path, Any]) -> dict[str, Any]:
    return {".".join(map(encode_name, path)): value for path, value in values.items()}


def of_evaluated(model: TrainedModel, mode: str, doubt: str = "") -> Training:
    """Return how a checkpoint was trained, and what a mode that evaluates it leaves untouched.

    Parameters
    ----------
    doubt
        Of the test tiles, see `train.models.training.Training`.
    """
    spec, untouched = model.spec, "best/test/*" if mode == "test" else None
    shape = {"head": spec.head, "normalize": spec.normalize}
    trained = model.training or Training("not known: an earlier checkpoint", shape, {}, {}, None)
    return replace(trained, untouched=untouched, doubt="").doubted(doubt)


def facts(training: Training, mode: str) -> dict[str, str]:
    """Return what a reader of a run's figures has to know; of a cohort there may be no figure."""
    named = training.facts
    return {what: named[what] for what in named if mode != "predict" or what != UNTOUCHED}


def print_summary(console: Console, training: Training, mode: str) -> None:
    """Print which head is registered, what was selected by which figure, and which by none."""
    for what, fact in facts(training, mode).items():
        console.print(f"{what}: {fact}", soft_wrap=True)


def add_to_page(page: Page, training: Training, mode: str) -> None:
    """Add the same to the page, the figure that selected nothing among its headlines."""
    by_subject = facts(training, mode)
    page.add("model", Table("What was selected, and by which figure", {
        "what": list(by_subject), "value": list(by_subject.values())
    }, folded=True))  # fmt: skip
    if UNTOUCHED in by_subject:
        why = training.doubt.partition(": ")[2] or "the tiles of each have selected something"
        if training.untouched:
            why = "nothing was selected by it"
        doubtful = not training.untouched
        page.headlines.append(Headline("Untouched number", training.verdict, why, doubtful))
