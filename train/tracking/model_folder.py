"""The folder that MLflow registers: of networks of one shape exported once, then weights alone.

To export a network imports torch's compiler, and MLflow looks through all installed packages: five
times what the rest of a small run takes. A graph depends on the shape of its network and not on
its weights, so the folder that MLflow makes of some network of the shape is kept, see
docs/decisions/048-exported-once.md.
"""

import hashlib
import importlib.metadata
import json
import platform
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featurestore.io import cache
from featurestore.snapshots import fingerprints
from train.models import checkpoint
from train.models import heads as model_heads
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.heads import Finite
from train.tracking import version_files

KIND = "exports"
FORMAT = 1  # of what is kept here
MODEL, RECORDS = "model", "records.json"
GRAPH = Path("data") / "model.pt2"
EXTRA = Path("extra_files") / checkpoint.FILE
MLMODEL = "MLmodel"
CODE = Path(__file__).with_name("served_model.py")
KEEPS_OUT = """A file of this name keeps Python from writing bytecode of served_model.py here,
which would run in its place and is none of the files whose digests are recorded.
"""
ANSWER = "answer"  # the parameter of a prediction that says in which form it comes


def write(path: Path, described: Any, trained: TrainedModel, file: Path) -> None:
    """Write the folder of a trained model.

    Parameters
    ----------
    path
        The folder, which is not there yet.
    described
        MLflow's ``Model`` of it, which knows run and id, and gets the rest.
    file
        The checkpoint.
    """
    import mlflow

    network = served(trained.network)
    kept = cache.built(KIND, shape_digest(trained.spec), lambda folder: build(folder, trained.spec))
    records = json.loads((kept / RECORDS).read_text())
    if records is None:  # weights do not lie in this archive as they are
        return save(path, described, network, trained.spec, file)
    shutil.copytree(kept / MODEL, path)
    fill(kept / MODEL / GRAPH, path / GRAPH, records, network)
    shutil.copyfile(file, path / EXTRA)
    shape = mlflow.models.Model.load(str(kept / MODEL / MLMODEL))
    for name in ("flavors", "signature", "saved_input_example_info", "metadata"):
        setattr(described, name, getattr(shape, name))
    (path / MLMODEL).unlink()
    described.model_size_bytes = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    described.save(str(path / MLMODEL))


def served(network: nn.Module) -> nn.Module:
    """Return a network as it is served: what is not finite is refused before it."""
    return nn.Sequential(Finite(), network).cpu().eval()


def shape_digest(spec: ModelSpec) -> str:
    """Digest all that determines the graph of a network, and what MLflow says of it."""
    code = fingerprints.of_source(
        *(Path(str(file)).read_bytes() for file in (__file__, model_heads.__file__, CODE))
    )
    libraries = [importlib.metadata.version(name) for name in ("torch", "mlflow", "numpy")]
    shape = [spec.head, spec.hidden, spec.normalize, spec.dim, spec.classes]
    parts = [FORMAT, code, libraries, platform.python_version(), shape]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def build(folder: Path, spec: ModelSpec) -> None:
    """Export a network of a shape with random weights; say where in the archive these are.

    That others take their place is tried once, here: the graph must then say what they say.
    """
    import mlflow

    one, other = (served(randomised(spec.build(), seed)) for seed in (1, 2))
    placeholder = folder / checkpoint.FILE
    placeholder.write_bytes(b"")
    save(folder / MODEL, mlflow.models.Model(), one, spec, placeholder)
    placeholder.unlink()
    records = records_of(folder / MODEL / GRAPH, one)
    if records is not None:
        filled = folder / "filled.pt2"
        fill(folder / MODEL / GRAPH, filled, records, other)
        x = torch.randn((3, spec.dim), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            same = torch.equal(torch.export.load(filled).module()(x), other(x))
        filled.unlink()
        records = records if same else None
    (folder / RECORDS).write_text(json.dumps(records))


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Return a network whose weights are all different, so that each is known by its bytes."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    drawn = {name: torch.rand(value.shape, generator=generator) + 0.5
             for name, value in state.items()}  # fmt: skip
    network.load_state_dict(drawn)
    return network.eval().requires_grad_(False)


def records_of(archive: Path, network: nn.Module) -> dict[str, str] | None:
    """Return the record of an archive that holds each weight's bytes; None if there is not one."""
    with zipfile.ZipFile(archive) as content:
        names = {content.read(name): name for name in content.namelist()}
    weights = {name: as_bytes(value) for name, value in network.state_dict().items()}
    records = {name: names[value] for name, value in weights.items() if value in names}
    return records if len(set(records.values())) == len(weights) else None


def fill(archive: Path, filled: Path, records: dict[str, str], network: nn.Module) -> None:
    """Write an archive with the weights of another network in their records."""
    weights = {records[name]: as_bytes(value) for name, value in network.state_dict().items()}
    with zipfile.ZipFile(archive) as content, zipfile.ZipFile(filled, "w") as target:
        for record in content.infolist():
            copied = zipfile.ZipInfo(record.filename, record.date_time)
            target.writestr(copied, weights.get(record.filename, content.read(record.filename)))


def as_bytes(value: torch.Tensor) -> bytes:
    """Return the bytes of a tensor, row by row."""
    return value.detach().cpu().contiguous().numpy().tobytes()


def save(path: Path, described: Any, network: nn.Module, spec: ModelSpec, file: Path) -> None:
    """Let MLflow write the folder of a model: an exported graph, no pickle.

    What it answers is decided by ``served_model.py``, which lies beside the graph.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    named = f"probabilities of {', '.join(spec.classes)}"
    kind, classes = np.dtype(np.float32), len(spec.classes)
    outputs = Schema([TensorSpec(kind, (-1, classes), named)])
    with torch.no_grad():
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=described,
            # Which dimension of the graph is free to grow is read from it.
            signature=ModelSignature(Schema([TensorSpec(kind, (-1, spec.dim))]), outputs),
            input_example=np.zeros((2, spec.dim), dtype=np.float32),
            serialization_format="pt2",
            extra_files=[str(file)],
            metadata={"classes": spec.classes, "dim": spec.dim},
            # Given, or MLflow starts a process to find them out.
            pip_requirements=[f"torch=={importlib.metadata.version('torch')}", "numpy", "pandas"],
        )
    shutil.copyfile(CODE, path / CODE.name)
    (path / version_files.BYTECODE).write_text(KEEPS_OUT)
    graph = {"graph": {"path": GRAPH.as_posix(), "uri": GRAPH.as_posix()}}
    mlflow.pyfunc.add_to_model(
        described, "mlflow.pyfunc.model", model_code_path=CODE.name, artifacts=graph,
        env=described.flavors["python_function"]["env"],
    )  # fmt: skip
    # No schema of the input, or MLflow takes float32 alone: the model checks shape and values.
    answer = ParamSchema([ParamSpec(ANSWER, "string", "auto")])
    described.signature = ModelSignature(outputs=outputs, params=answer)
    described.save(str(path / MLMODEL))
