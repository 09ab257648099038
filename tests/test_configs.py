"""The configuration: every YAML loads, later layers win, mistakes are answered by name."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from featurestore.examples import digits_spec
from featurestore.spec import StoreSpec
from train import config, gate, promote, schema
from train.closed import CLOSED
from train.config import load, plain
from train.heads import HEADS
from train.optimizers import OPTIMIZERS
from train.schema import ConfigError

CONFIGS = ROOT / "configs"
RUNS = [f"data.runs.{name}=abc" for name in ("embeddings", "folds", "tiles", "slides")]


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_yaml_loads_and_opens_with_its_command(file: Path):
    group = file.parent.name
    text = file.read_text()
    assert text.startswith("# ")
    if file.name == "gate.yaml":  # of another script, with keys of its own
        assert f"python train/promote.py {promote.EXAMPLE}" in text
        gate.check(config.filed(gate.Gate, file))
        return
    assert "accelerate launch" in text
    if group == "accelerate":
        from accelerate.commands.config.config_args import load_config_from_file

        assert load_config_from_file(str(file)).num_processes >= 1
        return
    picked = [f"{group}={file.stem}"] if group in config.GROUPS else []
    runs = RUNS if "runs:" in text and group == "data" else []
    settled = load([*picked, *runs, "fold=0"])
    assert settled.fold == 0
    assert set(settled.class_indices) == set(settled.thresholds) != set()


def test_defaults_of_the_tissue_task():
    """The numbers of the original pipeline."""
    settled = load(["data=virchow2", *RUNS, "fold=4"])
    assert settled.class_indices == {
        "Nerve": 0, "Blood": 1, "Connective-Tissue": 2, "Fat": 3, "Epithelium": 4, "Muscle": 5,
        "Other": 6,
    }  # fmt: skip
    assert list(settled.thresholds.values()) == [0.0, 0.0, 0.4, 0.6, 0.2, 0.5, 0.5]
    assert (settled.tissue_prop_min, settled.k, settled.single_class) == (0.2, 5, True)
    assert (settled.learning_rate, settled.weight_decay) == (1e-4, 1e-3)
    assert (settled.batch_size, settled.max_epochs) == (1024, 500)
    assert (settled.patience, settled.min_delta, settled.optimizer) == (1, 1e-4, "adamw")
    assert settled.data.tiles == "runs:/abc/kfold_tiles.parquet"


def test_later_layers_win(tmp_path: Path):
    """Schema < probe.yaml < data < classes < experiment < command line."""
    (tmp_path / "data.yaml").write_text(
        "use: {classes: tissue}\ndata: {name: mine}\nk: 7\nseed: 1\n"
    )
    (tmp_path / "trial.yaml").write_text(
        "use: {data: data.yaml}\nseed: 2\nthresholds: {Fat: 0.9}\n"
    )
    settled = load(["experiment=trial.yaml", "fold=0", "thresholds.Muscle=0.8"])
    assert (settled.data.name, settled.k, settled.seed) == ("mine", 7, 2)
    assert (settled.thresholds["Fat"], settled.thresholds["Muscle"]) == (0.9, 0.8)
    assert settled.thresholds["Epithelium"] == 0.2


@pytest.mark.parametrize("data", ["virchow2", "prov-gigapath"])
def test_missing_run_id_is_answered_by_key_and_example(data: str):
    with pytest.raises(ConfigError) as refusal:
        load([f"data={data}", "fold=4", "data.runs.embeddings=abc"])
    assert "data.runs.folds is not set" in str(refusal.value)
    assert "kfold_tiles.parquet" in str(refusal.value)
    assert "for example data.runs.folds=" in str(refusal.value)


def test_a_run_id_is_not_asked_for_where_its_artifact_has_another_uri():
    """Overriding an artifact's URI by a path leaves its run id without use."""
    settled = load(
        ["data=virchow2", "fold=4", "data.tiles=t.parquet", "data.embeddings=e/*.parquet",
         "data.test_tiles=null", "data.slides=null"]
    )  # fmt: skip
    assert (settled.data.tiles, settled.data.runs) == ("t.parquet", {})


def test_hostile_class_names_can_be_set(tmp_path: Path):
    name = 'O"Brien; ü'
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({"class_indices": {name: 0}, "thresholds": {name: 0.1}})
    )
    assert load(["classes=c.yaml", "fold=0", f"thresholds.{name}=0.7"]).thresholds == {name: 0.7}


def test_names_known_without_torch_are_those_there_are():
    assert tuple(HEADS) == schema.HEADS
    assert tuple(OPTIMIZERS) == schema.OPTIMIZERS
    assert tuple(CLOSED) == schema.CLOSED


def test_printed_configuration_makes_the_same_views():
    """What a run logs as config.yaml is what `featurestore --config` reads."""
    settled = load(["experiment=stratified_group_kfold", "fold=4"])
    again = StoreSpec.from_config(yaml.safe_load(config.text(settled)))
    assert again == StoreSpec.from_config(plain(settled))
    assert again.kfold_strategy == "stratified_group"


def test_a_recorded_configuration_is_read_again_with_changes():
    settled = load(["experiment=stratified_group_kfold", "fold=4"])
    assert config.recorded(config.text(settled), []) == settled
    changed = config.recorded(config.text(settled), ["fold=2", "data.tiles=other.parquet"])
    assert (changed.fold, changed.data.tiles, changed.k) == (2, "other.parquet", settled.k)
    with pytest.raises(ConfigError, match="did you mean 'fold'"):
        config.recorded("flod: 4", [])


def test_small_scripts_have_their_own_keys():
    assert config.small(schema.Maps, ["slides=worst:20"], "slides=all").slides == "worst:20"
    with pytest.raises(ConfigError, match="did you mean 'slides'"):
        config.small(schema.Maps, ["slide=all"], "slides=all")
    with pytest.raises(ConfigError, match="write for example slides=all"):
        config.small(schema.Maps, ["all"], "slides=all")


def test_embedded_digits_follow_their_classes_file():
    from featurestore.mlflow_artifacts import use_tracking

    use_tracking()
    spec, file = digits_spec(), yaml.safe_load((CONFIGS / "classes" / "digits.yaml").read_text())
    assert spec.class_indices == file["class_indices"]
    assert spec.thresholds == file["thresholds"]
    assert spec.tissue_prop_min == file["tissue_prop_min"]
