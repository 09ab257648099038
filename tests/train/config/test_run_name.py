"""A run is named by what tells it from others."""

from dataclasses import replace
from pathlib import Path

import pytest

from train.config.load import load
from train.config.run_name import LONGEST, run_name
from train.config.schema import Config
from train.config.sections import Data, Sweep, Tracking

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


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "digits stratified fold 4 adamw"),  # whose own presets are no changes
        (["normalize=zscore"], "digits stratified fold 4 adamw"),
        (["normalize=none", "learning_rate=0.1"],
         "digits stratified fold 4 adamw normalize none learning_rate 0.1"),
        (["data=mine.yaml"], "mine stratified fold 4 adamw"),
        (["data=mine.yaml", "normalize=none"], "mine stratified fold 4 adamw normalize none"),
        (["data=mine.yaml", "experiment=l2.yaml"], "mine stratified fold 4 adamw normalize l2"),
    ],
)  # fmt: skip
def test_what_the_choice_of_data_brings_is_no_change(argv: list[str], name: str):
    Path("mine.yaml").write_text(
        "use: {classes: tissue}\ndata: {name: mine, tiles: t.parquet, embeddings: e.parquet}\n"
        "normalize: zscore\n"
    )
    Path("l2.yaml").write_text("normalize: l2\n")
    assert run_name(load(["fold=4", *argv])) == name
