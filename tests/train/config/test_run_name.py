"""A run is named by what tells it from others."""

from dataclasses import replace

import pytest

from train.config.run_name import LONGEST, run_name
from train.config.schema import Config, Data, Sweep, Tracking

GROUP = Config(
    data=Data(name="virchow2"), fold=4, kfold_strategy="stratified_group", optimizer="lbfgs"
)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "virchow2 group fold 4 lbfgs"),
        ({"kfold_strategy": "stratified"}, "virchow2 stratified fold 4 lbfgs"),
        ({"fold": [0, 2], "weight_decay": 0.1}, "virchow2 group folds 0 2 lbfgs weight_decay 0.1"),
        ({"fold": "all", "probe": "ridge"}, "virchow2 group all folds ridge"),
        ({"head": "mlp", "hidden": 64}, "virchow2 group fold 4 mlp hidden 64"),
        ({"learning_rate": 0.1}, "virchow2 group fold 4 lbfgs"),  # does nothing there
        ({"normalize": "zscore"}, "virchow2 group fold 4 lbfgs normalize zscore"),
        (
            {"fold": "all", "sweep": Sweep(weight_decay=[0.1, 1.0]), "weight_decay": 0.1},
            "virchow2 group all folds lbfgs sweep weight_decay",
        ),
        (
            {"mode": "test", "fold": None, "checkpoint": "models:/tissue-probe/3"},
            "test virchow2 tissue-probe version 3",
        ),
        (
            {"data": Data(name="lab", embeddings={"virchow2": "a", "gigapath": "b"})},
            "virchow2 or gigapath group fold 4 lbfgs",
        ),
        (
            {"data": Data(name="lab", embeddings={"a": "a", "b": "b"}, encoder="b")},
            "b group fold 4 lbfgs",
        ),
        ({"tracking": Tracking(run_name="mine")}, "mine"),
        ({"data": Data(name="v" * 300)}, "v" * LONGEST),
    ],
)  # fmt: skip
def test_a_name_has_cohort_folds_method_and_what_is_not_as_by_default(changes: dict, name: str):
    assert run_name(replace(GROUP, **changes)) == name
