"""Every key of the configuration: its type, its default and the line that --help prints."""

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from featurestore.errors import ConfigError
from featurestore.examples import SyntheticConfig
from featurestore.spec.bounds import COUNTS, FOLDS, SEEDS, THREADS

__all__ = ["MISSING", "Config", "ConfigError", "doc"]  # the errors and values of other files' keys

# Spelled here too, since their own files import torch; a test holds the two alike.
HEADS = ("linear", "mlp")
OPTIMIZERS = ("adamw", "sgd")
SOLVERS = ("lbfgs",)
CLOSED = ("ridge", "lda", "prototype")
PROBES = ("logistic", *CLOSED, "knn")


FLOATS = "3.4e38"  # the largest that single floats hold
Fold = int | Literal["all"] | list[int] | None
Strategy = Literal["stratified", "stratified_group"]


def doc(line: str, within: str | None = None) -> dict[str, str]:
    """Attach the line that --help prints to a key, and the interval in which its numbers lie."""
    return {"doc": line} | ({"within": within} if within else {})


@dataclass
class Columns:
    """Names of columns in the files of tiles and embeddings, where they are not the usual ones."""

    slide_id: str | None = field(default=None, metadata=doc("column that is read as slide_id"))
    x: str | None = field(default=None, metadata=doc("column that is read as x"))
    y: str | None = field(default=None, metadata=doc("column that is read as y"))
    embedding: str | None = field(
        default=None, metadata=doc("column that is read as embedding: features")
    )


@dataclass
class Data:
    """Where the artifacts are: paths, globs, file://, runs:/RUN/path, mlflow-artifacts:/..."""

    name: str = field(default=MISSING, metadata=doc("name of the cohort, shown in MLflow"))
    builder: Literal["none", "digits", "synthetic"] = field(
        default="none", metadata=doc("what makes the artifacts")
    )
    runs: dict[str, str] = field(
        default_factory=dict, metadata=doc("run ids that the URIs below are made of")
    )
    tiles: str | None = field(default=None, metadata=doc("training tiles with coverages"))
    test_tiles: str | None = field(default=None, metadata=doc("held-out tiles"))
    predict_tiles: str | None = field(
        default=None, metadata=doc("tiles for mode=predict, labels not needed")
    )
    embeddings: str | dict[str, str] | None = field(
        default=None,
        metadata=doc("embeddings, a folder of Parquet files; or several encoders': {name: URI}"),
    )
    test_embeddings: str | dict[str, str] | None = field(
        default=None, metadata=doc("embeddings of held-out tiles, if elsewhere")
    )
    encoder: str | None = field(
        default=None,
        metadata=doc("which of several encoders (fit: one after another; else the checkpoint's)"),
    )
    slides: str | None = field(default=None, metadata=doc("slides, for SQL and maps"))
    columns: Columns = field(
        default_factory=Columns, metadata=doc("names of columns, where they are others")
    )
    snapshot: str | None = field(
        default=None,
        metadata=doc("tag, digest or run of a snapshot to train on without the artifacts"),
    )
    synthetic: SyntheticConfig = field(
        default_factory=SyntheticConfig, metadata=doc("shape of a synthetic cohort")
    )


@dataclass
class Tracking:
    """Where runs are recorded."""

    enabled: bool = field(default=True, metadata=doc("false: no MLflow, files stay in `output`"))
    uri: str | None = field(
        default=None,
        metadata=doc("tracking URI (default: MLFLOW_TRACKING_URI, else a sqlite file)"),
    )
    experiment: str = field(default="tissue-probe", metadata=doc("MLflow experiment"))
    run_name: str | None = field(default=None, metadata=doc("name of the run"))
    model: str = field(default="tissue-probe", metadata=doc("name in the model registry"))
    register: bool = field(default=True, metadata=doc("register the model of a fit"))


@dataclass
class Sweep:
    """Values to try side by side, in one pass over the embeddings: every combination of them."""

    learning_rate: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)
    label_smoothing: list[float] = field(default_factory=list)
    train_fraction: list[float] = field(
        default_factory=list,
        metadata=doc("shares of the slides to train on, drawn by slide", "(0, 1]"),
    )
    thresholds: dict[str, list[float]] = field(
        default_factory=dict, metadata=doc("class -> values: sweep.thresholds.Fat=[0.4,0.5]")
    )
    tissue_prop_min: list[float] = field(default_factory=list)
    kfold_strategy: list[Strategy] = field(
        default_factory=list, metadata=doc("the leak gap of one and the same head")
    )


@dataclass
class Evidence:
    """How it is told how good a model is."""

    resample: str = field(
        default="slide_id",
        metadata=doc("column that intervals are over: or patient_id"),
    )
    groups: list[str] = field(
        default_factory=list,
        metadata=doc("columns of tiles or slides to tell figures by: [organ,scanner]"),
    )
    ordered: bool = field(
        default=False, metadata=doc("the order of classes means something: quadratic kappa too")
    )

    def columns(self) -> list[str]:
        """Return the columns of tiles or slides that it asks for, besides the slide's name."""
        return [name for name in dict.fromkeys([self.resample, *self.groups]) if name != "slide_id"]


@dataclass
class Maps:
    """Maps of predictions that a pathologist opens, see train/maps.py."""

    slides: str | None = field(
        default=None,
        metadata=doc("worst:20, all, or names with commas between (probe.py: unset for none)"),
    )
    regions: bool = field(
        default=True,
        metadata=doc("GeoJSON of tiles merged by class; false: a polygon for each tile"),
    )
    downsample: float | None = field(
        default=None,
        metadata=doc(
            "pixels of level 0 in one of the slide's level, where that is not 0", f"(0, {FLOATS}]"
        ),
    )


@dataclass
class Config:
    """Every key, its type and its default."""

    mode: Literal["fit", "validate", "test", "predict"] = field(
        default="fit", metadata=doc("what to do")
    )
    fold: Fold = field(
        default=None,
        metadata=doc(
            "fold to validate on (fit, validate); fit also takes all, or [0,1,4]", "[0, 2147483647]"
        ),
    )
    sweep: Sweep = field(
        default_factory=Sweep, metadata=doc("values to try in one pass, for example [0.01,0.1]")
    )
    final: bool = field(
        default=False, metadata=doc("then train the best setting on all folds, and test it once")
    )
    checkpoint: str | None = field(
        default=None, metadata=doc("path, runs:/ or models:/ URI (validate, test, predict)")
    )
    output: str | None = field(
        default=None, metadata=doc("folder for checkpoint and predictions, besides MLflow")
    )
    seed: int = field(
        default=0, metadata=doc("seed of folds, order of tiles and initial weights", SEEDS)
    )
    data: Data = field(
        default_factory=Data, metadata=doc("artifacts; data=NAME picks configs/data/NAME.yaml")
    )
    class_indices: dict[str, int] = field(
        default_factory=dict, metadata=doc("class -> target, 0 .. K-1; classes=NAME")
    )
    thresholds: dict[str, float] = field(
        default_factory=dict,
        metadata=doc("class -> least coverage; 0.0 never matches 0.0", "[0, 1]"),
    )
    tissue_prop_min: float = field(default=0.2, metadata=doc("least sum of coverages", "[0, inf)"))
    single_class: bool = field(default=True, metadata=doc("drop tiles with more than one class"))
    label_rule: Literal["dominant", "any_passing"] = field(
        default="dominant", metadata=doc("which class is the label")
    )
    absent_coverage: Literal["refuse", "zero"] = field(
        default="refuse",
        metadata=doc("a class whose column some files lack: refuse, or zero of their tiles"),
    )
    merge: dict[str, list[str]] = field(
        default_factory=dict,
        metadata=doc("class -> classes of the data that it takes in: merge.Other=[Necrosis]"),
    )
    drop: list[str] = field(
        default_factory=list, metadata=doc("classes whose tiles are dropped: [Artefact]")
    )
    where: str | None = field(
        default=None,
        metadata=doc("only tiles for which this SQL over tiles and slides holds: organ = 'colon'"),
    )
    kfold_strategy: Strategy = field(
        default="stratified", metadata=doc("how folds are assigned where the tiles bring none")
    )
    kfold_group: str = field(
        default="slide_id", metadata=doc("column that stratified_group keeps together")
    )
    fold_rule: Literal["sklearn", "hash"] = field(
        default="sklearn", metadata=doc("stratified: scikit-learn's folds, or a hash of the key")
    )
    folds: Literal["extend", "new"] = field(
        default="extend",
        metadata=doc("extend: what had a fold keeps it; new: assign anew, and go on from there"),
    )
    k: int = field(default=5, metadata=doc("number of folds", FOLDS))
    balance: Literal["greedy", "optimal"] = field(
        default="greedy",
        metadata=doc("stratified_group: scikit-learn's folds, or evened out"),
    )
    allow_empty_class: bool = field(default=False, metadata=doc("accept a fold without a class"))
    leakage: Literal["refuse", "warn"] = field(
        default="refuse",
        metadata=doc("what to do about a leak that the strategy promises against"),
    )
    storage: Literal["float32", "float16", "bfloat16"] = field(
        default="float32", metadata=doc("type in which embeddings are materialised")
    )
    backend: Literal["duckdb", "pyspark"] = field(
        default="duckdb", metadata=doc("engine of the views; see docs/spark.md")
    )
    head: str = field(default="linear", metadata=doc("linear or mlp (train/models/heads.py)"))
    hidden: int = field(default=256, metadata=doc("hidden width of head=mlp", COUNTS))
    normalize: Literal["none", "zscore", "l2"] = field(
        default="none", metadata=doc("fitted on training tiles alone")
    )
    precision: Literal["float32", "bf16"] = field(
        default="float32", metadata=doc("of embeddings and products, of linear heads")
    )
    probe: str = field(
        default="logistic",
        metadata=doc("logistic; without iterations ridge, lda, prototype; or knn, a baseline"),
    )
    neighbours: int = field(default=20, metadata=doc("how many vote, with probe=knn", COUNTS))
    calibrate: bool = field(
        default=False,
        metadata=doc("fit a temperature on validation, or out of fold; it is in the weights"),
    )
    abstain_below: float | None = field(
        default=None, metadata=doc("write review.parquet: tiles less sure than this", "(0, 1]")
    )
    evidence: Evidence = field(
        default_factory=Evidence, metadata=doc("intervals, figures by group")
    )
    maps: Maps = field(default_factory=Maps, metadata=doc("GeoJSON and TIFF of predictions"))
    optimizer: str = field(default="adamw", metadata=doc("adamw, sgd; or lbfgs, to the optimum"))
    learning_rate: float = field(default=1e-4, metadata=doc("learning rate", f"(0, {FLOATS}]"))
    weight_decay: float = field(
        default=1e-3,
        metadata=doc(
            "weight decay; penalty of lbfgs and ridge, shrinkage of lda", f"[0, {FLOATS}]"
        ),
    )
    label_smoothing: float = field(
        default=0.0, metadata=doc("share of the target spread over classes", "[0, 1)")
    )
    batch_size: int = field(
        default=1024, metadata=doc("tiles a step, over all processes together", COUNTS)
    )
    max_epochs: int = field(default=500, metadata=doc("most epochs", COUNTS))
    patience: int = field(
        default=1, metadata=doc("epochs without a better validation/loss before stopping", COUNTS)
    )
    min_delta: float = field(default=1e-4, metadata=doc("what counts as better", f"[0, {FLOATS}]"))
    resume: bool | Literal["auto"] = field(
        default=False,
        metadata=doc("true: go on from the last epoch of this fit, killed; auto: if there is one"),
    )
    stream: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata=doc("read embeddings from disk every epoch: if memory is short"),
    )
    store: str | None = field(
        default=None,
        metadata=doc("path or s3://bucket/prefix through which machines share what they make"),
    )
    threads: int | None = field(
        default=None,
        metadata=doc("threads of the engine, a process (default: its cores)", THREADS),
    )
    memory_limit: str | None = field(
        default=None, metadata=doc("memory of the engine and of embeddings, for example 4GB")
    )
    tracking: Tracking = field(default_factory=Tracking, metadata=doc("MLflow"))

    @property
    def class_names(self) -> list[str]:
        """The class names by index."""
        return sorted(self.class_indices, key=self.class_indices.__getitem__)
