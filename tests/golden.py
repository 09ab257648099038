"""Record what the commands leave behind on the embedded digits, for tests/test_golden.py.

Each command runs a few epochs through the script's own entry. Of every MLflow run that it leaves,
these are recorded: metrics with their history, params, keys of tags, inputs, paths and contents of
artifacts, predictions, weights and the text of the page; besides, the registered versions and what
the command prints. After a change of results that is meant::

    python tests/golden.py tests/fixtures/golden.json

and read the difference of the fixture: it is the change.
"""

import hashlib
import html
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import runpy
import sqlite3
import sys
import tempfile
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from conftest import ROOT

DIGITS = 7  # significant ones of a recorded number; all of its bits go into a digest beside it
DATABASE = "mlflow.db"
SAMPLE = 2  # rows of a table of predictions that are recorded as numbers
SHORT = "max_epochs=3"
MODEL = "checkpoint=models:/tissue-probe/1"
COMMANDS = {
    "adamw": ["fold=4", SHORT],
    "sweep": ["fold=all", "sweep.learning_rate=[0.005,0.02]", "final=true", SHORT],
    "lbfgs": ["fold=4", "optimizer=lbfgs", "weight_decay=0.01"],
    "ridge": ["fold=[0,1]", "probe=ridge", "evidence.ordered=true"],
    "knn": ["fold=4", "probe=knn"],
    "mlp": ["fold=4", "head=mlp", "hidden=16", SHORT],
    "sgd": ["fold=4", "optimizer=sgd", "calibrate=true", "abstain_below=0.8", SHORT],
    "test": ["mode=test", MODEL],
    "predict": ["mode=predict", MODEL],
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100",
               "TISSUE_PROBE_COMMIT": "0" * 40}  # fmt: skip
IN_FULL = "adamw"  # whose page and console are recorded as text, the others' as digests
PARTS = ("xydata", "xy", "width", "height", "extent", "offsets", "array", "facecolor", "color")
CLASSES = "0123456789"
OTHERS = {"mlflow.source.git.branch", "mlflow.source.git.repoURL"}  # tags of some checkouts alone
VARIES = {
    re.escape(f"{ROOT}/"): "",
    r"The checkout had changes that no commit holds:[^<\n]*": "",
    r"\d\d \w+ \d{4}, \d\d:\d\d UTC": "TIME",
    r"\b[0-9a-f]{64}\b": "SHA256",
    r"\b[0-9a-f]{40}\b(-dirty)?": "COMMIT",
    r"\b(m-)?[0-9a-f]{32}\b": "ID",
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d UTC": "TIME",
    r"(?<!\.)\b[0-9a-f]{16}\b": "SNAPSHOT",  # and no decimals
    r"\b\d+\.\d+\.\d+[\w.+]*": "VERSION",
    r"[\d.,]+ (ms|s|min)\b": "DURATION",
    r"[\d.,]+ rows/s": "RATE",
    r"[━─]+": "-",  # long lines of the console's tables
}
NUMBER = r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]\d+"  # integers are exact everywhere


# -- running the commands -------------------------------------------------------------------------


def measure() -> dict[str, Any]:
    """Run all commands in the working folder; return what each leaves."""
    import mlflow
    import torch
    from matplotlib.figure import Figure

    torch.set_num_threads(1)
    # Drawing for real would take more than half of the time; tests/train/reports/test_html.py
    # looks at PNGs.
    Figure.savefig = lambda figure, target, **_: write(shown(figure), target)
    client = mlflow.MlflowClient(f"sqlite:///{DATABASE}")
    seen: set[str] = set()
    left = {}
    for name, argv in COMMANDS.items():
        printed = call(argv)
        fresh = [run for run in recorded_runs(client) if run.info.run_id not in seen]
        seen |= {run.info.run_id for run in fresh}
        left[name] = {
            "command": argv,
            "console": text(printed, name == IN_FULL),
            "runs": {title: of_run(client, run, name) for title, run in titled(client, fresh)},
        }
    left["registry"] = of_registry(client)
    first = next(run["params"] for run in left[IN_FULL]["runs"].values() if run["params"])
    for name in COMMANDS:
        for run in left[name]["runs"].values():
            if "mode" in run["params"] and run["params"] is not first:
                run["params"] = changes(first, run["params"])
    return left


def changes(first: dict[str, str], params: dict[str, str]) -> dict[str, str | None]:
    """Return what differs from the first run's params; None for what is absent."""
    return {
        key: params.get(key) for key in sorted({*first, *params})
        if first.get(key) != params.get(key)
    }  # fmt: skip


def call(argv: list[str]) -> str:
    """Run ``python train/probe.py`` in this process; return what it prints."""
    printed = io.StringIO()
    before, sys.argv = sys.argv, ["train/probe.py", *argv]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            runpy.run_path(str(ROOT / "train" / "probe.py"), run_name="__main__")
    except SystemExit as status:
        assert not status.code, printed.getvalue()
    finally:
        sys.argv = before
    return printed.getvalue()


def recorded_runs(client: Any) -> list[Any]:
    """Return all runs, the earliest first."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return sorted(runs, key=lambda run: run.info.start_time)


def titled(client: Any, runs: list[Any]) -> list[tuple[str, Any]]:
    """Name runs by experiment and name; of an MLflow store these are unique within a command."""
    titles = [
        f"{client.get_experiment(run.info.experiment_id).name}/{run.info.run_name}" for run in runs
    ]
    assert len(set(titles)) == len(titles), titles
    return list(zip(titles, runs, strict=True))


# -- what is recorded of them ---------------------------------------------------------------------


def of_run(client: Any, run: Any, command: str) -> dict[str, Any]:
    """Return all that a run holds and that does not vary."""
    number, data = run.info.run_id, run.data
    paths = artifact_paths(client, number, "")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(client.download_artifacts(number, "", scratch)) if paths else Path(scratch)
        files = {path: of_file(folder / path, command == IN_FULL) for path in paths}
        tables = sorted({Path(path).parts[0] for path in paths if path.endswith(".parquet")})
        return {
            "status": run.info.status,
            "metrics": metrics(number),
            "params": {key: settled(value) for key, value in sorted(data.params.items())},
            "tags": " ".join(sorted({*data.tags} - OTHERS)),
            "inputs": sorted(map(of_input, run.inputs.dataset_inputs)),
            "artifacts": files,
            "tables": {path: of_table(folder / path) for path in tables},
        }  # fmt: skip


def metrics(run: str) -> dict[str, Any]:
    """Return values by name within the group before it, those of the classes 0 to 9 under ``*``.

    Of ends of intervals two classes stand for all. Of a metric with steps 0, 1, ... the values are
    listed, of one with other steps these as well.
    """
    # MLflow answers for one metric at a time, which for all of them takes seconds.
    query = "select distinct key, step, value, is_nan from metrics where run_uuid = ? order by 1, 2"
    histories: dict[str, list[tuple[int, float]]] = {}
    with closing(sqlite3.connect(DATABASE)) as database:
        for key, step, value, is_nan in database.execute(f"{query}, 3", [run]):
            histories.setdefault(key, []).append((step, math.nan if is_nan else value))
    groups: dict[str, Any] = {}
    for key, history in histories.items():
        steps, short = [step for step, _ in history], [rounded(value) for _, value in history]
        group, _, name = key.rpartition("/")
        held = groups.setdefault(group, {"bits": ""})
        held["bits"] = digest(held["bits"] + repr(history))
        counted = steps == list(range(len(steps)))
        held[name] = short[0] if steps == [0] else short if counted else [steps, short]
    for group, held in groups.items():
        if {*CLASSES} <= {*held}:
            of_classes = [held.pop(name) for name in CLASSES]
            held["*"] = of_classes[:2] if group.endswith(("_low", "_high")) else of_classes
    return groups


def of_input(found: Any) -> str:
    """Return an input's name, context and keys of tags, and the digest of a snapshot's rows."""
    tags = {tag.key: tag.value for tag in found.tags}
    keys = sorted({*tags} - {"mlflow.data.context"})
    rows = f", content {tags['content'][:12]}" if "content" in tags else ""
    return f"{found.dataset.name} for {tags.get('mlflow.data.context')}: {' '.join(keys)}{rows}"


def artifact_paths(client: Any, run: str, below: str) -> list[str]:
    """Return the paths of all files that a run has logged."""
    found = []
    for one in client.list_artifacts(run, below or None):
        found += artifact_paths(client, run, one.path) if one.is_dir else [one.path]
    return sorted(found)


def of_file(file: Path, in_full: bool) -> Any:
    """Return what a file holds: a page's sections, a text, tensors or the digest of a picture."""
    if file.name == "report.html":
        return of_page(file.read_text(), in_full)
    if file.name == "versions.txt":
        return text(re.sub(r"==.*", "==VERSION", file.read_text()), True)
    if file.suffix in (".json", ".yaml", ".txt", ".csv", ".md"):
        return text(file.read_text(), False)
    if file.suffix == ".safetensors":
        return of_checkpoint(file)
    if file.suffix == ".parquet":
        return "table"
    return {"bits": digest(file.read_bytes())}


def of_page(page: str, in_full: bool) -> dict[str, Any]:
    """Return the visible text of a page by section."""
    body = re.sub(r"<(style|title)\b.*?</\1>", "", page, flags=re.DOTALL)
    parts = re.split(r'<section id="(\w+)">', body)
    named = dict(zip(["head", *parts[1::2]], parts[::2], strict=True))
    named = {name: re.sub(r"\s*</t[dh]>\s*", " | ", part) for name, part in named.items()}
    return {
        name: text(html.unescape(re.sub(r"<[^>]+>\s*", "\n", part)), in_full)
        for name, part in named.items()
    }


def of_checkpoint(file: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint, and the metadata that rebuild its network."""
    from safetensors import safe_open

    tensors = {}
    with safe_open(file, framework="pt") as opened:
        for name in sorted(opened.keys()):
            value = opened.get_tensor(name)
            tensors[name] = {
                "shape": list(value.shape), "type": str(value.dtype),
                "norm": rounded(float(value.double().norm())),
                "bits": digest(value.numpy().tobytes()),
            }  # fmt: skip
        metadata = {key: json.loads(value) for key, value in (opened.metadata() or {}).items()}
        for described in metadata.values():
            described["training"] = digest(str(described.get("training")))
    return {"metadata": metadata, "tensors": tensors}


def of_table(path: Path) -> dict[str, Any]:
    """Return a table's columns, digests of keys and of floats, and of these a sample."""
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    table = pq.read_table(path)
    if path.is_dir():  # a file a slide, whose names mean nothing
        table = table.sort_by([(key, "ascending") for key in ("slide_id", "x", "y")])
    floats = [field.name for field in table.schema if kinds.is_floating(field.type)]
    held = {name: table[name].to_numpy() for name in floats}
    places = range(0, len(table), max(1, len(table) // SAMPLE))[:SAMPLE]
    return {
        "rows": len(table),
        "columns": ", ".join(f"{field.name} {field.type}" for field in table.schema),
        "digests": " ".join(
            digest(json.dumps(table[name].to_pylist(), default=str))
            for name in table.column_names if name not in floats
        ),
        "bits": digest(b"".join(values.tobytes() for values in held.values())),
        "sample": {
            name: [rounded(float(values[place])) for place in places]
            for name, values in held.items() if not name.startswith("roi_")
        },
    }  # fmt: skip


def of_registry(client: Any) -> dict[str, Any]:
    """Return the registered versions: their files, the keys of their tags, what they answer."""
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{DATABASE}")
    batch = np.linspace(0, 16, 3 * 64, dtype=np.float32).reshape(3, 64)
    found = {}
    for one in sorted(client.search_model_versions(), key=lambda one: int(one.version)):
        uri = f"models:/{one.name}/{one.version}"
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=scratch))
            files = sorted(
                str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
            )
            model = mlflow.pyfunc.load_model(str(folder))
            answer = np.asarray(model.predict(batch))
            found[uri] = {
                "tags": " ".join(sorted(one.tags)),
                "files": " ".join(files),
                "weights": of_checkpoint(next(folder.rglob("*.safetensors")))["tensors"],
                "metadata": str(model.metadata.metadata),
                "signature": str(model.metadata.signature),
                "bits": digest(answer.tobytes()),
                "answer": [rounded(float(one)) for one in answer[1]],
            }
    return found


def text(content: str, in_full: bool) -> Any:
    """Return a text without what varies: its lines, or digests with and without its decimals."""
    lines = [re.sub(r"(?<=\S)\s+", " ", line).rstrip() for line in settled(content).splitlines()]
    lines = [line for line in lines if line]
    if in_full:
        return lines
    joined = "\n".join(lines)
    return {"bits": digest(joined), "words": digest(re.sub(NUMBER, "#", joined))}


def settled(content: str) -> str:
    """Replace what differs from run to run."""
    content = content.replace(str(Path.cwd()), "HOME")
    for pattern, name in VARIES.items():
        content = re.sub(pattern, name, content)
    return content


def shown(figure: Any) -> str:
    """Return what a figure shows: size, texts, ticks, limits, points, areas and their colours."""
    told: list[Any] = [figure.get_size_inches().tolist(), figure.dpi]
    for axes in figure.axes:
        told += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        told += [axes.get_xlim(), axes.get_ylim(), axes.get_xscale(), axes.get_yscale()]
        for axis in (axes.xaxis, axes.yaxis):  # whose ticks are slow to make
            places, names = axis.get_major_locator(), axis.get_major_formatter()
            told += [list(getattr(places, "locs", ())), list(getattr(names, "seq", ()))]
        legend = axes.get_legend()
        texts = [*axes.texts, *(legend.get_texts() if legend else ())]
        told += [[one.get_text(), one.get_position(), one.get_color()] for one in texts]
        for one in (*axes.lines, *axes.patches, *axes.collections, *axes.images):
            told.append(type(one).__name__)
            for part in PARTS:
                value = getattr(one, f"get_{part}", lambda: None)()
                told.append(getattr(value, "tolist", lambda value=value: value)())
    return repr([told, [one.get_text() for one in figure.texts]])


def write(content: str, target: Any) -> None:
    """Write to a path or an open file."""
    if hasattr(target, "write"):
        target.write(content.encode())
    else:
        Path(target).write_text(content)


def rounded(value: float) -> float:
    """Return a number with as many digits as are recorded."""
    return float(f"{value:.{DIGITS}g}")


def digest(content: str | bytes) -> str:
    """Return as much of a SHA-256 as a fixture needs."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:12]


def fingerprint() -> dict[str, str]:
    """Return what decides about the last bits: the processor and the packages that compute."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().split("\n\n")[0].splitlines() if cpu.exists() else []
    told = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "numpy", "scikit-learn", "matplotlib", "mlflow")
    }
    return versions | {
        "machine": platform.machine(),
        "processor": told.get("model name", platform.processor()),
        "instructions": digest(" ".join(sorted(told.get("flags", "").split()))),
    }


def dumped(value: Any) -> str:
    """Return JSON by lines, so that a difference of the fixture is read by line."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(line) < 80 or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        own = [f"{json.dumps(key)}:{dumped(one)}" for key, one in value.items()]
        return "{" + ",\n".join(own) + "}"
    if not isinstance(value[0], str):
        return line
    return "[" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "]"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python tests/golden.py FILE")
    file = Path(sys.argv[1]).absolute()
    os.environ.update(ENVIRONMENT)
    import torch  # takes its threads from the environment, which a recorded command would name

    torch.set_num_threads(1)
    for name in ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        recording = {"fingerprint": fingerprint(), "commands": measure()}
        os.chdir(ROOT)
    file.write_text(dumped(recording) + "\n")
