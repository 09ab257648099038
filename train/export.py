"""Export a model: ONNX, safetensors with its rules in JSON, and a card that says what it is.

    python train/export.py models:/tissue-probe/1
    python train/export.py runs:/RUN/checkpoint.safetensors output=deployed

Writes a folder (which must not be there yet): `model.onnx`, one file, embeddings (rows, dim) to
probabilities (rows, classes), compared with the network before it is kept; `model.safetensors` and
`model.json`; `README.md`, the card. Needs `pip install -e '.[export]'`.
"""

import sys

from train.config import installed

# What the extra `train` brings is looked for before it is imported: without it one refusal is told.
if __name__ == "__main__":
    installed.check_or_exit()

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.errors import ConfigError
from train.config.help import help_or_refuse, keys, run_command
from train.config.load import small
from train.config.schema import doc
from train.config.sections import Server

EXAMPLE = "models:/tissue-probe/1 output=exported"


@dataclass
class Request:
    """How a model is exported."""

    output: str = field(default="exported", metadata=doc("a new folder"))
    tracking: Server = field(default_factory=Server, metadata=doc("MLflow"))


def understood(argv: Sequence[str]) -> tuple[str, Request]:
    """Return the model that is named, and how it is to be exported.

    Raises
    ------
    ConfigError
        A ``key=value`` is not understood, or no model is named, or several.
    """
    models = [word for word in argv if not word.startswith("-")
              and ("=" not in word or Path(word).exists())]  # fmt: skip
    request = small(Request, [word for word in argv if word not in models], EXAMPLE)
    if len(models) != 1:
        raise ConfigError(
            "One model is exported at a time", found=" ".join(models) or "no model",
            fix=f"name one, for example {EXAMPLE}",
        )  # fmt: skip
    return models[0], request


def usage() -> str:
    """Return the help: what is exported, and the keys."""
    return "\n".join([(__doc__ or "").strip(), "", *keys(Request)])


# Help and refused arguments must not wait for torch and MLflow to be imported.
if __name__ == "__main__":
    help_or_refuse(sys.argv[1:], usage, understood)

import dataclasses
import json
import tempfile
from typing import Any

from featurestore.errors import ArtifactError, shown_warnings
from featurestore.io import mlflow_artifacts, names
from featurestore.io.atomic import publish
from featurestore.printing import Console, say
from featurestore.spec.rules import LabelRules, field_names
from featurestore.views import precision
from train.config.load import excerpt
from train.models import checkpoint, onnx_graph
from train.models.checkpoint import TrainedModel
from train.models.training import Training
from train.predictions.table import plural
from train.tracking import registered_models
from train.tracking.runs import RunRecord, load_run, trained_values

CARD = """---
library_name: onnx
pipeline_tag: image-classification
tags: [pathology, linear-probe]
---
# {name}

A {head} head on precomputed tile embeddings of length {dim}: probabilities of {number} classes.

| class | index | least coverage of its training tiles |
|---|---|---|
{classes}

## Use

```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
embeddings = np.zeros((1, {dim}), dtype=np.float32)  # as the foundation model gives them
[probabilities] = session.run(None, {{"embedding": embeddings}})
```

Embeddings go in as they are: normalisation ({normalize}) and temperature ({temperature:.4g}) are in
the graph. `model.safetensors` holds the weights, `model.json` the rules.

## How it was trained

{training}

## Where it comes from

{origin}

## How good it is

{figures}

A prediction is for tiles like those it was trained on: the same foundation model, scanner,
magnification and stains. It is no diagnosis.
"""


def main(argv: Sequence[str]) -> int:
    """Export a model; return the exit status, 2 after a refusal."""
    return run_command(argv, usage, work)


def work(argv: list[str]) -> int:
    """Export what the arguments name."""
    model, request = understood(argv)
    output = Path(request.output)
    with shown_warnings(Console(stderr=True)), names.resolved_once():
        export(model, output, request.tracking.uri)
    say(f"written: {', '.join(sorted(str(file) for file in output.iterdir()))}")
    return 0


def export(model: str, output: Path, uri: str | None = None) -> None:
    """Write the folder of a model, all of it or nothing.

    Raises
    ------
    ArtifactError
        There is no such model, the folder is there, ONNX is not installed, or it gives other
        probabilities.
    """
    onnx_graph.check_installed()
    if output.exists():
        raise ArtifactError(
            f"{output} is there already", found=f"{len(list(output.glob('*')))} files",
            fix="name another folder, or remove it",
        )  # fmt: skip
    record: RunRecord | None = None
    if model.startswith(("models:", "runs:")):
        mlflow_artifacts.use_tracking(uri)
        model = names.resolved(model)
        record = load_run(names.run_of(model))
    trained = registered_models.load(model)
    settings = rules(trained.training, record)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".exporting-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        onnx_graph.write_onnx(trained, folder / "model.onnx")
        checkpoint.save(folder / "model.safetensors", trained)
        content = described(model, trained, settings, record)
        (folder / "model.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        (folder / "README.md").write_text(card(model, trained, settings, record))
        publish(folder, output)


def rules(training: Training | None, record: RunRecord | None) -> dict[str, Any]:
    """Return the rules that the training tiles were labelled by.

    They are those of the checkpoint; of an earlier one, those that its run has recorded.
    """
    values = training.rules if training else {}
    if not training and record:
        values = trained_values(record, field_names(LabelRules))
    return values | {"precision": precision.RULE} if values else {}


def described(
    model: str, trained: TrainedModel, settings: dict[str, Any], record: RunRecord | None
) -> dict[str, Any]:
    """Return what a program must know of the model."""
    spec, training = trained.spec, trained.training
    how = dataclasses.asdict(training) if training else {}
    return {
        "model": model,
        "classes": spec.classes,
        "dim": spec.dim,
        "head": spec.head,
        "normalize": spec.normalize,
        "temperature": spec.temperature,
        "rules": settings,
        "training": {key: how[key] for key in how if key != "rules"},
        "run": record.run if record else None,
        "commit": record.commit if record else None,
        "data": record.data if record else {},
    }


def card(
    model: str, trained: TrainedModel, settings: dict[str, Any], record: RunRecord | None
) -> str:
    """Return the model card, as Markdown."""
    least, spec = settings.get("thresholds", {}), trained.spec
    classes = [
        f"| {name} | {index} | {least.get(name, 'not known')} |"
        for index, name in enumerate(spec.classes)
    ]
    how = trained.training.text if trained.training else "Not known: an earlier checkpoint."
    origin, figures = "Not known: it was exported from a file.", "Not known."
    if record:
        lines = [f"- model: `{model}`", f"- MLflow run: `{record.run}`",
                 f"- commit: `{record.commit or 'not known'}`"]  # fmt: skip
        lines += [f"- {name}: sha256 `{digest}`" for name, digest in record.data.items()]
        origin, figures = "\n".join(lines), figure_table(record.metrics, units_of(record))
    return CARD.format(
        name=model.removeprefix("models:/"), head=spec.head, dim=spec.dim,
        number=len(spec.classes), classes="\n".join(classes), normalize=spec.normalize,
        temperature=spec.temperature, training=how,
        origin=origin, figures=figures,
    )  # fmt: skip


def units_of(record: RunRecord) -> str:
    """Return what the intervals of a run's figures are over, nothing where that is not known."""
    evidence = excerpt(record.config, ["evidence"]) if record.config else {}
    column = evidence.get("evidence", {}).get("resample")
    return f" over {plural(column)}" if column else ""


def figure_table(metrics: dict[str, float], over: str) -> str:
    """Return a table of the figures that the run has recorded, with their intervals.

    Parameters
    ----------
    over
        What these are over, see `units_of`.
    """
    rows = [f"| split | figure | value | 95 %{over} |", "|---|---|---|---|"]
    for name, value in sorted(metrics.items()):
        kind, _, rest = name.partition("/")
        split, _, figure = rest.partition("/")
        if kind != "best" or not figure or "/" in figure or figure.endswith(("_low", "_high")):
            continue
        ends = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
        between = "" if None in ends else f"{ends[0]:.4f} .. {ends[1]:.4f}"
        rows.append(f"| {split} | {figure} | {value:.4f} | {between} |")
    return "\n".join(rows) if len(rows) > 2 else "The run has recorded no figures."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
