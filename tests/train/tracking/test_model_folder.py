"""The folder that is registered: exported once for a shape, and then as MLflow would have it."""

import sys
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.tracking import model_folder


def trained(seed: int, normalize: str = "zscore") -> TrainedModel:
    spec = ModelSpec("linear", 0, normalize, 5, ["a", "b", "c"], [1.0, 1.0, 1.0])
    return TrainedModel(model_folder.randomised(spec.build(), seed), spec)


def written(folder: Path, model: TrainedModel) -> Path:
    file = checkpoint.save(folder.parent / checkpoint.FILE, model)
    model_folder.write(folder, mlflow.models.Model(run_id="run"), model, file)
    return folder


@pytest.mark.slow
def test_a_shape_is_exported_once_and_each_model_has_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folder serves what the network says, and holds what MLflow writes of it.

    Nor does Python write bytecode into it as it is served.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = written(tmp_path / "first", trained(7))
    exported = mlflow.pytorch.save_model
    monkeypatch.setattr(mlflow.pytorch, "save_model", None)
    model = trained(8)
    second = written(tmp_path / "second", model)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(x)).numpy()
    assert np.array_equal(mlflow.pyfunc.load_model(str(second)).predict(x), expected)
    monkeypatch.setattr(mlflow.pytorch, "save_model", exported)
    complete = tmp_path / "whole"
    file = tmp_path / checkpoint.FILE
    network = model_folder.served(model.network)
    model_folder.save(complete, mlflow.models.Model(run_id="run"), network, model.spec, file)
    names = [{p.relative_to(f) for p in f.rglob("*")} for f in (first, second, complete)]
    assert names[0] == names[1] == names[2]
    differ = {"MLmodel", "model.pt2"}
    for path in filter(Path.is_file, complete.rglob("*")):
        same = (second / path.relative_to(complete)).read_bytes() == path.read_bytes()
        assert same or path.name in differ, path
    descriptions = [
        mlflow.models.Model.load(str(f / "MLmodel")).to_dict() for f in (second, complete)
    ]
    unlike = ("model_uuid", "utc_time_created", "model_size_bytes")
    one, other = ({k: v for k, v in content.items() if k not in unlike} for content in descriptions)
    assert one == other


def test_weights_that_cannot_be_told_apart_are_in_no_record(tmp_path: Path):
    network = nn.Linear(2, 2)
    archive = tmp_path / "model.pt2"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a/weight_0", model_folder.as_bytes(network.weight))
    assert model_folder.records_of(archive, network) is None
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr("a/weight_1", model_folder.as_bytes(network.bias))
    records = model_folder.records_of(archive, network)
    assert records == {"weight": "a/weight_0", "bias": "a/weight_1"}
    other = nn.Linear(2, 2)
    model_folder.fill(archive, tmp_path / "filled.pt2", records, other)
    assert model_folder.records_of(tmp_path / "filled.pt2", other) == records


def test_the_digest_of_a_shape_is_of_all_that_decides_the_graph():
    spec = trained(1).spec
    shapes = [
        spec,
        ModelSpec("linear", 0, "l2", 5, spec.classes, spec.weights),
        ModelSpec("mlp", 4, "zscore", 5, spec.classes, spec.weights),
        ModelSpec("linear", 0, "zscore", 6, spec.classes, spec.weights),
        ModelSpec("linear", 0, "zscore", 5, ["a", "b", "d"], spec.weights),
    ]
    assert len({model_folder.shape_digest(shape) for shape in shapes}) == len(shapes)
    tempered = ModelSpec("linear", 0, "zscore", 5, spec.classes, [2.0, 1.0, 1.0], 1.5)
    assert model_folder.shape_digest(tempered) == model_folder.shape_digest(spec)
