"""The configuration: its schema, its defaults, and how the pieces in configs/ compose.

    python -m train.config data=virchow2 data.runs.tiles=... > store.yaml    # print it resolved

Each YAML in configs/ overlays the whole configuration. `data=NAME`, `classes=NAME` and
`experiment=NAME` pick one (or name a file); its section `use` may pick others. In order, the later
wins: the schema below, configs/probe.yaml, data, classes, experiment, the command line.
"""

import dataclasses
import difflib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from featurestore.errors import FeatureStoreError
from featurestore.examples import Cohort

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# Spelled here too, since their own files import torch; a test holds the two alike.
HEADS = ("linear", "mlp")
OPTIMIZERS = ("adamw", "sgd")
SOLVERS = ("lbfgs",)
CLOSED = ("ridge", "lda", "prototype")
PROBES = ("logistic", *CLOSED, "knn")
GROUPS = ("data", "classes", "experiment")  # in the order in which they are merged


class ConfigError(FeatureStoreError):
    """An argument, a key or a value of the configuration that is not understood."""


def _doc(line: str) -> dict[str, str]:
    """Attach the line that --help prints to a key."""
    return {"doc": line}


@dataclass
class Data:
    """Where the artifacts are: paths, globs, file://, runs:/RUN/path, mlflow-artifacts:/..."""

    name: str = field(default=MISSING, metadata=_doc("name of the cohort, shown in MLflow"))
    builder: Literal["none", "digits", "synthetic"] = field(
        default="none", metadata=_doc("what makes the artifacts")
    )
    runs: dict[str, str] = field(
        default_factory=dict, metadata=_doc("run ids that the URIs below are made of")
    )
    tiles: str | None = field(default=None, metadata=_doc("training tiles with coverages"))
    test_tiles: str | None = field(default=None, metadata=_doc("held-out tiles"))
    predict_tiles: str | None = field(
        default=None, metadata=_doc("tiles for mode=predict, labels not needed")
    )
    embeddings: str | None = field(
        default=None, metadata=_doc("embeddings, a folder of Parquet files")
    )
    test_embeddings: str | None = field(
        default=None, metadata=_doc("embeddings of held-out tiles, if elsewhere")
    )
    slides: str | None = field(default=None, metadata=_doc("slides, for SQL"))
    synthetic: Cohort = field(default_factory=Cohort, metadata=_doc("shape of a synthetic cohort"))


@dataclass
class Tracking:
    """Where runs are recorded."""

    enabled: bool = field(default=True, metadata=_doc("false: no MLflow, files stay in `output`"))
    uri: str | None = field(
        default=None,
        metadata=_doc("tracking URI (default: MLFLOW_TRACKING_URI, else a sqlite file)"),
    )
    experiment: str = field(default="tissue-probe", metadata=_doc("MLflow experiment"))
    run_name: str | None = field(default=None, metadata=_doc("name of the run"))
    model: str = field(default="tissue-probe", metadata=_doc("name in the model registry"))
    register: bool = field(default=True, metadata=_doc("register the model of a fit"))


@dataclass
class Sweep:
    """Values to try side by side, in one pass over the embeddings: every combination of them."""

    learning_rate: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)
    label_smoothing: list[float] = field(default_factory=list)
    train_fraction: list[float] = field(
        default_factory=list, metadata=_doc("shares of the slides to train on, drawn by slide")
    )
    thresholds: dict[str, list[float]] = field(
        default_factory=dict, metadata=_doc("class -> values: sweep.thresholds.Fat=[0.4,0.5]")
    )
    tissue_prop_min: list[float] = field(default_factory=list)
    kfold_strategy: list[str] = field(
        default_factory=list, metadata=_doc("the leak gap of one and the same head")
    )


@dataclass
class Config:
    """Every key, its type and its default."""

    mode: Literal["fit", "validate", "test", "predict"] = field(
        default="fit", metadata=_doc("what to do")
    )
    fold: Any = field(
        default=None,
        metadata=_doc("fold to validate on (fit, validate); fit also takes all, or [0,1,4]"),
    )
    sweep: Sweep = field(
        default_factory=Sweep, metadata=_doc("values to try in one pass, for example [0.01,0.1]")
    )
    final: bool = field(
        default=False, metadata=_doc("then train the best setting on all folds, and test it once")
    )
    checkpoint: str | None = field(
        default=None, metadata=_doc("path, runs:/ or models:/ URI (validate, test, predict)")
    )
    output: str | None = field(
        default=None, metadata=_doc("folder for checkpoint and predictions, besides MLflow")
    )
    seed: int = field(default=0, metadata=_doc("seed of folds, order of tiles and initial weights"))
    data: Data = field(
        default_factory=Data, metadata=_doc("artifacts; data=NAME picks configs/data/NAME.yaml")
    )
    class_indices: dict[str, int] = field(
        default_factory=dict, metadata=_doc("class -> target, 0 .. K-1; classes=NAME")
    )
    thresholds: dict[str, float] = field(
        default_factory=dict, metadata=_doc("class -> least coverage; 0.0 never matches 0.0")
    )
    tissue_prop_min: float = field(default=0.2, metadata=_doc("least sum of coverages"))
    single_class: bool = field(default=True, metadata=_doc("drop tiles with more than one class"))
    label_rule: Literal["dominant", "any_passing"] = field(
        default="dominant", metadata=_doc("which class is the label")
    )
    kfold_strategy: Literal["stratified", "stratified_group"] = field(
        default="stratified", metadata=_doc("how folds are assigned where the tiles bring none")
    )
    kfold_group: str = field(
        default="slide_id", metadata=_doc("column that stratified_group keeps together")
    )
    k: int = field(default=5, metadata=_doc("number of folds"))
    balance: Literal["greedy", "optimal"] = field(
        default="greedy", metadata=_doc("stratified_group: scikit-learn's folds, or a solver's")
    )
    allow_empty_class: bool = field(
        default=False, metadata=_doc("stratified_group: accept a fold without a class")
    )
    leakage: Literal["refuse", "warn"] = field(
        default="refuse",
        metadata=_doc("what to do about a leak that the strategy promises against"),
    )
    storage: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata=_doc("type in which embeddings are materialised")
    )
    backend: Literal["duckdb", "pyspark"] = field(
        default="duckdb", metadata=_doc("engine of the views; see docs/spark.md")
    )
    head: str = field(default="linear", metadata=_doc("linear or mlp (train/heads.py)"))
    hidden: int = field(default=256, metadata=_doc("hidden width of head=mlp"))
    normalize: Literal["none", "zscore", "l2"] = field(
        default="none", metadata=_doc("fitted on training tiles alone")
    )
    precision: Literal["float32", "bf16"] = field(
        default="float32", metadata=_doc("of embeddings and products, of linear heads")
    )
    probe: str = field(
        default="logistic",
        metadata=_doc("logistic; without iterations ridge, lda, prototype; or knn, a baseline"),
    )
    neighbours: int = field(default=20, metadata=_doc("how many vote, with probe=knn"))
    calibrate: bool = field(
        default=False,
        metadata=_doc("fit a temperature on validation, or out of fold; it is in the weights"),
    )
    abstain_below: float | None = field(
        default=None, metadata=_doc("write review.parquet: tiles less sure than this")
    )
    optimizer: str = field(default="adamw", metadata=_doc("adamw, sgd; or lbfgs, to the optimum"))
    learning_rate: float = field(default=1e-4, metadata=_doc("learning rate"))
    weight_decay: float = field(
        default=1e-3,
        metadata=_doc("weight decay; penalty of lbfgs and ridge, shrinkage of lda"),
    )
    label_smoothing: float = field(default=0.0, metadata=_doc("share of the aim given to all"))
    batch_size: int = field(
        default=1024, metadata=_doc("tiles a step, over all processes together")
    )
    max_epochs: int = field(default=500, metadata=_doc("most epochs"))
    patience: int = field(
        default=1, metadata=_doc("epochs without a better validation/loss before stopping")
    )
    min_delta: float = field(default=1e-4, metadata=_doc("what counts as better"))
    resume: Any = field(
        default=False,
        metadata=_doc("true: go on from the last epoch of this fit, killed; auto: if there is one"),
    )
    stream: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata=_doc("read linear heads' embeddings from disk every epoch: if memory is short"),
    )
    threads: int | None = field(
        default=None, metadata=_doc("threads of the engine, a process (default: its cores)")
    )
    memory_limit: str | None = field(
        default=None, metadata=_doc("memory of the engine and of embeddings, for example 4GB")
    )
    tracking: Tracking = field(default_factory=Tracking, metadata=_doc("MLflow"))


def load(argv: list[str]) -> Config:
    """Return the configuration that configs/ and ``key=value`` arguments make, resolved.

    Raises
    ------
    ConfigError
        A key, value, file or argument that is not understood, with the nearest one that is; or a
        mandatory key (``???``) that is missing, with an example.
    """
    return _settled(_composed(argv))


def _composed(argv: list[str]) -> DictConfig:
    for argument in argv:
        if "=" not in argument or argument.startswith("-"):
            raise ConfigError(
                f"The argument {argument!r} is not of the form key=value",
                found=" ".join(argv),
                fix="write for example fold=4 learning_rate=3e-4; --help lists the keys",
            )
    picked = dict(a.split("=", 1) for a in argv if a.split("=", 1)[0] in GROUPS)
    rest = [a for a in argv if a.split("=", 1)[0] not in GROUPS]
    base = _read(CONFIGS / "probe.yaml")
    overlays, chosen, default = {}, picked, base.pop("use", {})
    for group in ("experiment", "data", "classes"):  # in the order in which they may pick others
        name = chosen.get(group, default.get(group))
        if name is not None:
            overlays[group] = _read(_file(group, name))
            chosen = {**overlays[group].pop("use", {}), **chosen}
    layers = [base, *(overlays[group] for group in GROUPS if group in overlays)]
    try:
        config = OmegaConf.structured(Config)
        for layer in layers:
            config = OmegaConf.merge(config, layer)
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(rest))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise _explained(error) from error
    assert isinstance(merged, DictConfig)
    return merged


def _settled(config: DictConfig) -> Config:
    written = OmegaConf.to_container(config.data, resolve=False)
    assert isinstance(written, dict)
    for run in [name for name, value in written["runs"].items() if value == MISSING]:
        key = f"data.runs.{run}"
        for name, uri in written.items():
            if isinstance(uri, str) and f"{{{key}}}" in uri:
                raise _unset(key, f"data={config.data.name} has data.{name!s}={uri}")
        del config.data.runs[run]  # its artifacts were all given other URIs
    for key in sorted(OmegaConf.missing_keys(config)):
        raise _unset(key, f"{key}=???")
    try:
        settled = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise _explained(error) from error
    assert isinstance(settled, Config)
    _check_mode(settled)
    return settled


def _check_mode(config: Config) -> None:
    """Refuse a mode without the key that it needs, and numbers that make no sense."""
    if config.mode in ("fit", "validate") and config.fold is None:
        raise ConfigError(
            f"mode={config.mode} needs a fold to validate on",
            found="fold is not set",
            fix=f"set fold to one of 0 .. {config.k - 1}, for example fold={config.k - 1}",
        )
    if (config.mode == "fit") != (config.checkpoint is None):
        raise ConfigError(
            f"mode={config.mode} {'takes no' if config.mode == 'fit' else 'needs a'} checkpoint",
            found=f"checkpoint={config.checkpoint}",
            fix="set for example mode=test checkpoint=models:/tissue-probe/1",
        )
    optimizers = (*OPTIMIZERS, *SOLVERS)
    for key, named in (("head", HEADS), ("optimizer", optimizers), ("probe", PROBES)):
        name = getattr(config, key)
        if name not in named:
            raise ConfigError(
                f"There is no {key} {name!r}",
                found=f"{key}: {', '.join(named)}{_nearest(name, list(named))}",
                fix="pick one of them" + (key != "probe") * f", or add yours to train/{key}s.py",
            )
    if config.resume not in (True, False, "auto"):
        raise ConfigError(
            "resume is neither true, nor false, nor auto",
            found=f"resume={config.resume}",
            fix="set for example resume=true",
        )
    if config.memory_limit:
        size(config.memory_limit)
    _check_fold(config)
    _check_sweep(config)
    _check_solver(config)
    _check_probe(config)
    _check_calibration(config)
    for key, least in (
        ("batch_size", 1),
        ("max_epochs", 1),
        ("patience", 1),
        ("k", 2),
        ("neighbours", 1),
    ):
        if getattr(config, key) < least:
            raise ConfigError(
                f"{key} is too small", found=f"{getattr(config, key)}", fix=f"at least {least}"
            )


def _check_fold(config: Config) -> None:
    """Refuse a fold that is no number, and packs of heads where there can be none."""
    folds = config.fold if isinstance(config.fold, list) else [config.fold]
    if config.fold not in (None, "all") and not all(type(fold) is int for fold in folds):
        raise ConfigError(
            "fold is neither a number, nor a list of numbers, nor all",
            found=f"fold={config.fold}",
            fix="set for example fold=4, fold=[0,1,4] or fold=all",
        )
    if not packed(config):
        return
    if config.mode != "fit":
        raise ConfigError(
            f"mode={config.mode} takes one fold and no sweep",
            found=f"fold={config.fold}",
            fix="set for example fold=4",
        )
    if config.head != "linear":
        raise ConfigError(
            "Only linear heads are trained side by side",
            found=f"head={config.head}",
            fix="set head=linear, or one fold and no sweep",
        )


def _check_solver(config: Config) -> None:
    if config.optimizer in SOLVERS and config.precision != "float32":
        raise ConfigError(
            "An optimum is not found in half precision",
            found=f"optimizer={config.optimizer} precision={config.precision}",
            fix="set precision=float32",
        )


def _check_probe(config: Config) -> None:
    """Refuse what a probe without iterations has no use for."""
    if config.probe == "logistic":
        return
    unused = ["learning_rate", "label_smoothing"]
    unused += ["weight_decay"] if config.probe in ("prototype", "knn") else []
    for key in unused:
        if getattr(config.sweep, key):
            raise ConfigError(
                f"probe={config.probe} has no {key}",
                found=f"sweep.{key}={getattr(config.sweep, key)}",
                fix=f"leave sweep.{key} out",
            )
    if config.final and config.probe == "knn":
        raise ConfigError(
            "probe=knn has no weights that a final head could be trained to",
            found="final=true",
            fix="leave final out; the folds say how good it is",
        )
    decays = [config.weight_decay, *config.sweep.weight_decay]
    if config.probe == "lda" and not all(0 <= decay <= 1 for decay in decays):
        raise ConfigError(
            "weight_decay is the shrinkage of probe=lda, in [0, 1]",
            found=f"{decays}",
            fix="set for example weight_decay=0.1",
        )


def _check_calibration(config: Config) -> None:
    """Refuse a temperature where there are no weights to put it in, and shares out of range."""
    if config.calibrate and (config.head != "linear" or config.probe == "knn"):
        raise ConfigError(
            "A temperature goes into the weights of a linear head",
            found=f"calibrate=true head={config.head} probe={config.probe}",
            fix="leave calibrate out, or set head=linear",
        )
    if config.abstain_below is not None and not 0 < config.abstain_below <= 1:
        raise ConfigError(
            "abstain_below is a probability, in (0, 1]",
            found=f"{config.abstain_below}",
            fix="set for example abstain_below=0.8",
        )


def _check_sweep(config: Config) -> None:
    for fraction in config.sweep.train_fraction:
        if not 0 < fraction <= 1:
            raise ConfigError(
                "sweep.train_fraction is a share of the slides, in (0, 1]",
                found=f"{fraction}",
                fix="set for example sweep.train_fraction=[0.01,0.1,1.0]",
            )
    for strategy in config.sweep.kfold_strategy:
        if strategy not in ("stratified", "stratified_group"):
            raise ConfigError(
                f"There is no kfold_strategy {strategy!r}",
                found=f"sweep.kfold_strategy={config.sweep.kfold_strategy}",
                fix="set sweep.kfold_strategy=[stratified,stratified_group]",
            )


def packed(config: Config) -> bool:
    """Return whether heads are trained side by side: of several folds, or of several settings."""
    swept = [value for value in dataclasses.asdict(config.sweep).values() if value]
    one_fold = config.fold is None or isinstance(config.fold, int)
    solved = config.optimizer in SOLVERS or config.probe != "logistic"
    return config.final or bool(swept) or not one_fold or (config.mode == "fit" and solved)


def run_name(config: Config) -> str:
    """Return the name of the run: the configured one, or what it does on what."""
    several = "-".join(map(str, config.fold)) if isinstance(config.fold, list) else config.fold
    fold = "" if config.fold is None else f"-fold{several}"
    named = config.tracking.run_name
    return named or f"{config.mode}-{config.data.name}-{config.head}{fold}"


def size(limit: str) -> int:
    """Return the bytes of, for example, 4GB or 512 MiB, as DuckDB reads them."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", limit.lower())
    if not found:
        raise ConfigError(
            "memory_limit is not a size", found=f"{limit!r}", fix="set for example memory_limit=4GB"
        )
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def alone(config: Config) -> bool:
    """Return whether one linear head is trained."""
    return config.mode == "fit" and config.head == "linear" and not packed(config)


def plain(config: Config) -> dict[str, Any]:
    """Return the configuration as plain containers, for YAML and for the store."""
    return dataclasses.asdict(config)


def text(config: Config) -> str:
    """Return the configuration as YAML: what a run logs and ``featurestore --config`` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def flat(config: Config) -> dict[tuple[str, ...], Any]:
    """Return the keys that are set, each with its path, for example ("thresholds", "Fat")."""

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
        rows: dict[tuple[str, ...], Any] = {}
        for key, value in node.items():
            if isinstance(value, dict):
                rows |= walk(value, (*path, key))
            elif value is not None and value != []:
                rows[*path, key] = value
        return rows

    return walk(plain(config), ())


def _unset(key: str, found: str) -> ConfigError:
    example = f"{key}=5f1c0d9a7e8b4c62" if key.startswith("data.runs.") else f"{key}=..."
    return ConfigError(
        f"{key} is not set",
        found=found,
        fix=f"set it on the command line, for example {example}",
    )


def _file(group: str, name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    file = CONFIGS / group / f"{name}.yaml"
    if not file.exists():
        there = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        raise ConfigError(
            f"There is no {group}={name}",
            found=f"{group}: {', '.join(there)}{_nearest(name, there)}",
            fix=f"pick one of them, or name a file: {group}=path/to/mine.yaml",
        )
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OSError, YAMLError) as error:
        raise ConfigError(
            f"{file} cannot be read as YAML",
            found=str(error).splitlines()[0],
            fix="correct the file or its name",
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} is not a mapping", found=type(content).__name__, fix="see configs/"
        )
    return dict(content)


def _explained(error: Exception) -> ConfigError:
    key = getattr(error, "full_key", None) or "an argument"
    first = str(error).splitlines()[0]
    if first.startswith("Key "):
        keys = [name for name, _, _ in _documented(Config)]
        return ConfigError(
            f"There is no configuration key {key!r}",
            found=f"{len(keys)} keys{_nearest(key, keys)}",
            fix="correct its name; python train/probe.py --help lists the keys",
        )
    return ConfigError(
        f"The value of {key} is not understood", found=first, fix="see train/probe.py --help"
    )


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _documented(schema: type, prefix: str = "", of: str = "") -> list[tuple[str, Any, str]]:
    """List the keys with their defaults and lines; one without a line has that of its section."""
    rows = []
    for entry in dataclasses.fields(schema):
        factory = entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        name, line = prefix + entry.name, entry.metadata.get("doc", of)
        if dataclasses.is_dataclass(default):
            rows += _documented(type(default), name + ".", line)
        else:
            rows.append((name, default, line))
    return rows


def usage() -> str:
    """Return the help: every key, its default and what it is."""
    lines = [
        "usage: accelerate launch train/probe.py [key=value ...]",
        "",
        "  data=NAME classes=NAME experiment=NAME  pick a file of configs/",
        *(
            f"      {group}: {', '.join(sorted(p.stem for p in (CONFIGS / group).glob('*.yaml')))}"
            for group in GROUPS
        ),
        "",
    ]
    for name, default, doc in _documented(Config):
        shown = "" if default is None or default in ({}, MISSING) else f" [{default}]"
        lines.append(f"  {name:<26}{doc}{shown}")
    return "\n".join(lines)


def check_or_exit(argv: list[str]) -> None:
    """Print the help and leave, or refuse bad arguments with exit status 2, or return."""
    if {"-h", "--help"} & set(argv):
        print(usage())
        sys.exit(0)
    try:
        load(argv)
    except ConfigError as error:
        if os.environ.get("RANK", "0") == "0":  # one process speaks for all
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    check_or_exit(sys.argv[1:])
    print(text(load(sys.argv[1:])), end="")
