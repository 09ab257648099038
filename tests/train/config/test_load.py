"""The configuration: every YAML loads, later layers win, mistakes are answered by name."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from featurestore.examples import digits_spec
from featurestore.spec.store_spec import StoreSpec
from train.config import help as config_help
from train.config import load as config_load
from train.config import rules, schema
from train.config import text as config_text
from train.config.load import load
from train.config.schema import ConfigError
from train.config.text import plain
from train.engine.optimizers import OPTIMIZERS
from train.engine.solvers.closed_form import CLOSED
from train.models.heads import HEADS
from train.promotion import gate, requirements

CONFIGS = ROOT / "configs"
RUNS = [f"data.runs.{name}=abc" for name in ("embeddings", "folds", "tiles")]


@pytest.mark.parametrize(
    "file",
    sorted(f for f in CONFIGS.rglob("*.yaml") if f.parent.name != "cluster"),
    ids=lambda p: p.stem,
)
def test_every_yaml_loads_and_opens_with_its_command(file: Path):
    group = file.parent.name
    text = file.read_text()
    assert text.startswith("# ")
    if file.name.startswith("gate"):  # of another script, with keys of its own
        assert "python train/promote.py model=tissue-probe version=" in text
        gate.check(config_load.filed(requirements.Gate, file))
        return
    assert "accelerate launch" in text
    if group == "accelerate":
        from accelerate.commands.config.config_args import load_config_from_file

        assert load_config_from_file(str(file)).num_processes >= 1
        return
    picked = [f"{group}={file.stem}"] if group in config_load.GROUPS else []
    runs = RUNS if "runs:" in text and group == "data" else []
    if file.stem == "files":
        runs = ["data.tiles=a", "data.embeddings=b", "class_indices={A: 0}", "thresholds={A: 0.5}"]
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
    assert settled.data.tiles == "runs:/abc/kfold_split/kfold_tiles.parquet"


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
def test_missing_run_ids_are_answered_by_keys_and_examples(data: str):
    """All of them at once."""
    with pytest.raises(ConfigError) as refusal:
        load([f"data={data}", "fold=4", "data.runs.embeddings=abc"])
    names = "data.runs.folds and data.runs.tiles are not set"
    assert names in str(refusal.value)
    assert "kfold_tiles.parquet" in str(refusal.value)
    assert "for example data.runs.folds=" in str(refusal.value)


def test_a_run_id_is_not_asked_for_where_its_artifact_has_another_uri():
    """Overriding an artifact's URI by a path leaves its run id without use."""
    settled = load(
        ["data=virchow2", "fold=4", "data.tiles=t.parquet", "data.embeddings=e/*.parquet",
         "data.test_tiles=null", "data.slides=null"]
    )  # fmt: skip
    assert (settled.data.tiles, settled.data.runs) == ("t.parquet", {})


@pytest.mark.parametrize("data", ["virchow2", "prov-gigapath"])
def test_run_ids_are_all_that_a_pipeline_has_to_be_asked_for(data: str):
    """As its runs lay artifacts out: embeddings and slides one a split."""
    runs = [f"data.runs.{name}={name}-id" for name in ("embeddings", "folds", "tiles")]
    settled = load([f"data={data}", "fold=4", *runs])
    assert settled.data.embeddings == [
        "runs:/embeddings-id/train/tiles", "runs:/embeddings-id/test/tiles",
    ]  # fmt: skip
    assert settled.data.slides == [
        "runs:/embeddings-id/train/slides.parquet", "runs:/embeddings-id/test/slides.parquet",
    ]  # fmt: skip
    assert settled.data.tiles == "runs:/folds-id/kfold_split/kfold_tiles.parquet"
    assert settled.data.test_tiles == "runs:/tiles-id/filter_tiles/test_tiles.parquet"
    assert (
        StoreSpec.from_yaml(config_text.text(settled).encode(), "it").slides == settled.data.slides
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.slides=[a.parquet,s3://b/c.parquet]", ["a.parquet", "s3://b/c.parquet"]),
        ("data.slides=['*.parquet']", ["*.parquet"]),
        ("data.slides=a.parquet", "a.parquet"),
        ("data.slides=[ab]*.parquet", "[ab]*.parquet"),  # a glob
        ("data.slides=null", None),
    ],
)
def test_an_artifact_is_one_uri_or_a_list(argument: str, value: object):
    assert load(["fold=0", argument]).data.slides == value


def test_a_uri_twice_in_a_list_is_refused():
    with pytest.raises(ConfigError, match=r"data\.slides holds 'a' more than once"):
        load(["fold=0", "data.slides=[a,a]"])


def test_hostile_class_names_can_be_set(tmp_path: Path):
    name = 'O"Brien; ü'
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({"class_indices": {name: 0}, "thresholds": {name: 0.1}})
    )
    assert load(["classes=c.yaml", "fold=0", f"thresholds.{name}=0.7"]).thresholds == {name: 0.7}


HUGE = str(10**300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "refused", "taken"),
    [
        ("seed", ["-1", str(2**32), HUGE], ["0", str(2**32 - 1)]),
        ("learning_rate", ["-1", "0", "1e39"], ["1e-30", "3e38"]),
        ("weight_decay", ["-1e-9", "1e300"], ["0"]),
        ("label_smoothing", ["-0.1", "1"], ["0", "0.99"]),
        ("min_delta", ["-1"], ["0"]),
        ("tissue_prop_min", ["-0.1", "10.1"], ["0", "10"]),  # the digits have ten classes
        ("thresholds.0", ["-0.1", "1.1"], ["0", "1"]),
        ("abstain_below", ["0", "1.1"], ["1"]),
        ("hidden", ["0", HUGE], ["1"]),
        ("threads", ["0", "100000"], ["1"]),
        ("batch_size", ["0", "-5", str(2**31)], ["1"]),
        ("max_epochs", ["0"], ["1"]),
        ("patience", ["0"], ["1"]),
        ("neighbours", ["0"], ["1"]),
        ("k", ["1"], ["2"]),
        ("fold", ["-1", "[0,-1]"], ["0"]),
        ("maps.downsample", ["0", "-1"], ["4"]),
        (
            "memory_limit",
            ["0GB", "1.2.3GB", "x", "4000000000", "4Gi"],
            ["1.5 GiB", "4g", "4000000000 b"],
        ),
        ("data.synthetic.rows", ["0"], ["1"]),
        ("data.synthetic.seed", ["-1"], ["0"]),
        ("data.synthetic.mixed", ["-0.1", "1.1"], ["1"]),
        ("data.synthetic.held_out", ["1"], ["0"]),
        ("sweep.train_fraction", ["[0]", "[0.5,1.1]"], ["[0.5,1]"]),
        ("sweep.learning_rate", ["[0.1,0]"], ["[0.1]"]),
        ("sweep.weight_decay", ["[-1]"], ["[0]"]),
        ("sweep.label_smoothing", ["[1]"], ["[0.1]"]),
        ("sweep.tissue_prop_min", ["[0.1,11]"], ["[0.1]"]),
        ("sweep.thresholds.0", ["[0.1,1.1]"], ["[0.1]"]),
    ],
)
def test_numbers_out_of_their_bounds_are_refused(key: str, refused: list[str], taken: list[str]):
    """What is swept has the bounds of what it is swept for."""
    others = [] if key == "fold" else ["fold=1"]
    for value in refused:
        with pytest.raises(ConfigError, match=key.removeprefix("sweep.").split(".")[0]):
            load([*others, f"{key}={value}"])
    for value in taken:
        load([*others, f"{key}={value}"])


@pytest.mark.parametrize(
    "argument", ["fold=[0,0]", "sweep.learning_rate=[0.1,1e-1]", "evidence.groups=[a,b,a]",
                 "sweep.kfold_strategy=[stratified,stratified]", "sweep.thresholds.0=[0.1,0.1]"]
)  # fmt: skip
def test_nothing_is_listed_twice(argument: str):
    with pytest.raises(ConfigError, match=r"holds .* more than once"):
        load([*([] if argument.startswith("fold") else ["fold=1"]), argument])


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["normalize=none"], "lower learning_rate, or set normalize=zscore"),
        (["normalize=zscore"], "lower learning_rate"),
        (["sweep.learning_rate=[1,2]"], "lower sweep.learning_rate"),
        (["optimizer=lbfgs"], "raise weight_decay"),
    ],
)
def test_advice_that_is_followed_already_is_not_given(arguments: list[str], advice: str):
    """Of training that diverges: the digits are standardised, and a solver has no learning rate."""
    assert rules.steadier(load(["fold=0", *arguments])) == advice


@pytest.mark.parametrize(
    ("arguments", "words", "unsaid"),
    [
        (["mode=test"], "set for example checkpoint=", "mode=test checkpoint"),
        (["fold=0", "checkpoint=x"], "leave it out", "for example checkpoint"),
        (["mode=validate", "checkpoint=x", "fold=0", "sweep.weight_decay=[0.1]"],
         "leave sweep.weight_decay=[0.1] out", "fold=4"),
        (["mode=validate", "checkpoint=x", "fold=all"], "set one fold", "leave"),
        (["fold=0", "head=mlp", "final=true"], "leave the others out", "one fold"),
        (["fold=0", "warmup_epochs=3", "max_epochs=3"], "fewer epochs than max_epochs", "knn"),
        (["fold=0", "probe=knn", "calibrate=true"], "another probe", "head=linear\n"),
    ],
)  # fmt: skip
def test_advice_says_what_is_not_done_yet(arguments: list[str], words: str, unsaid: str):
    with pytest.raises(ConfigError) as refusal:
        load(arguments)
    assert words in refusal.value.fix
    assert unsaid not in refusal.value.fix


def test_names_known_without_torch_are_those_there_are():
    assert tuple(HEADS) == schema.HEADS
    assert tuple(OPTIMIZERS) == schema.OPTIMIZERS
    assert tuple(CLOSED) == schema.CLOSED


def test_printed_configuration_makes_the_same_views():
    """What a run logs as config.yaml is what `featurestore --config` reads."""
    settled = load(["experiment=stratified_group_kfold", "fold=4"])
    again = StoreSpec.from_config(yaml.safe_load(config_text.text(settled)))
    assert again == StoreSpec.from_config(plain(settled))
    assert again.kfold_strategy == "stratified_group"


def test_a_run_that_swept_what_does_nothing_is_read_again():
    """Earlier code took it; today a fit is refused that asks for it."""
    argv = ["fold=all", "optimizer=lbfgs", "sweep.learning_rate=[0.1,0.2]"]
    with pytest.raises(ConfigError, match="optimizer=lbfgs has no learning_rate"):
        config_load.load(argv)
    settled = config_load.load(["fold=all", "sweep.learning_rate=[0.1,0.2]"])
    text = config_text.text(settled).replace("optimizer: adamw", "optimizer: lbfgs")
    assert config_load.recorded(text, []).sweep.learning_rate == [0.1, 0.2]


def test_a_recorded_configuration_is_read_again_with_changes():
    settled = load(["experiment=stratified_group_kfold", "fold=4"])
    assert config_load.recorded(config_text.text(settled), []) == settled
    changed = config_load.recorded(
        config_text.text(settled), ["fold=2", "data.tiles=other.parquet"]
    )
    assert (changed.fold, changed.data.tiles, changed.k) == (2, "other.parquet", settled.k)
    with pytest.raises(ConfigError, match="did you mean 'fold'"):
        config_load.recorded("flod: 4", [])


def test_small_scripts_have_their_own_keys():
    assert config_load.small(schema.Maps, ["slides=worst:20"], "slides=all").slides == "worst:20"
    with pytest.raises(ConfigError, match="did you mean 'slides'"):
        config_load.small(schema.Maps, ["slide=all"], "slides=all")
    with pytest.raises(ConfigError, match="write for example slides=all"):
        config_load.small(schema.Maps, ["all"], "slides=all")


def test_embedded_digits_follow_their_classes_file():
    from featurestore.io.mlflow_artifacts import use_tracking

    use_tracking()
    spec, file = digits_spec(), yaml.safe_load((CONFIGS / "classes" / "digits.yaml").read_text())
    assert spec.class_indices == file["class_indices"]
    assert spec.thresholds == file["thresholds"]
    assert spec.tissue_prop_min == file["tissue_prop_min"]


def test_who_names_no_data_beside_data_yaml_is_told_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    config_help.check_or_exit(["fold=4"])
    (tmp_path / "data.yaml").write_text("")
    config_help.check_or_exit(["fold=4", "data=digits"])
    assert capsys.readouterr().err == ""
    config_help.check_or_exit(["fold=4"])
    assert "data.yaml here is not read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["optimizer=lbfgs", "learning_rate=0.01"], "learning_rate with optimizer=lbfgs"),
        (["probe=knn", "patience=3", "neighbours=5"], "patience with probe=knn"),
        (["optimizer=lbfgs", "weight_decay=0.01"], ""),
    ],
)
def test_an_argument_without_effect_is_said_to_have_none(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    config_help.check_or_exit(["fold=4", *argv])
    error = capsys.readouterr().err
    assert words in error and bool(error) == bool(words)
