"""What describes a run where MLflow lists runs and models: description, tags, card."""

import json
from collections.abc import Sequence

from featurestore.redaction import redacted
from featurestore.snapshots.snapshot import Snapshot
from train.config.encoders import encoders
from train.config.schema import Config
from train.models.checkpoint import TrainedModel
from train.reports.html import Headline
from train.tracking.provenance import git_commit


def tags(config: Config, snapshots: Sequence[Snapshot]) -> dict[str, str]:
    """Return the tags by which runs and versions are searched for, those that are known."""
    named = {
        "cohort": config.data.name,
        "encoder": config.data.encoder or ", ".join(encoders(config)),
        "strategy": config.kfold_strategy,
        "snapshot": " ".join(snapshot.digest[:16] for snapshot in snapshots),
        "commit": git_commit() or "",
    }
    return {name: value for name, value in named.items() if value}


def description(headlines: Sequence[Headline], command: str) -> str:
    """Return what a run is about in Markdown: its headlines, and the command that repeats it."""
    return f"{markdown_list(headlines)}\n\n```sh\n{command}\n```\n"


def markdown_list(headlines: Sequence[Headline]) -> str:
    """Return headlines as a list in Markdown, what is doubtful marked."""
    lines = (
        f"- {'**!** ' * one.doubtful}{one.name}: **{one.value}**"
        + (f" ({one.detail})" if one.detail else "")
        for one in headlines
    )
    return "\n".join(lines)


def card(
    model: TrainedModel, headlines: Sequence[Headline], tags_of_run: dict[str, str], command: str
) -> str:
    """Return the card of a model in Markdown: what it is, how good, how made, how used.

    Parameters
    ----------
    tags_of_run
        The tags of its run, see `tags`.
    command
        That trained it.
    """
    spec, subject = model.spec, tags_of_run.get("encoder") or tags_of_run["cohort"]
    classes = ", ".join(spec.classes)
    made = model.training.text if model.training else "not known"
    origin = "\n".join(f"- {name}: {value}" for name, value in tags_of_run.items())
    asked = json.dumps({"answer": "table"})
    return redacted(f"""\
A {spec.head} head on tile embeddings of {subject}, {spec.dim} numbers each: probabilities of \
{len(spec.classes)} classes ({classes}). For tiles like those it was trained on; it is no diagnosis.

## How good it is

{markdown_list(headlines)}

## How it was trained

{made}

## Where it comes from

{origin}

```sh
{command}
```

## Use

`mlflow.pyfunc.load_model("models:/NAME/VERSION").predict(embeddings, params={asked})`
""")
