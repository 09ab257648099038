"""Every key of the configuration: its type, its default and the line that --help prints."""

from collections.abc import Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from featurestore.errors import ConfigError
from featurestore.spec.bounds import COUNTS, THREADS
from featurestore.spec.keys import MISSING, doc
from featurestore.spec.literals import (
    AbsentCoverage,
    Balance,
    Engine,
    FoldRule,
    Growth,
    LabelRule,
    Leakage,
    Storage,
    Strategy,
)
from featurestore.spec.rules import EncoderUris, Uris
from featurestore.spec.store_spec import StoreSpec
from featurestore.spec.synthetic import SyntheticConfig

__all__ = ["MISSING", "Config", "ConfigError", "doc"]  # the errors and values of other files' keys

# Spelled here too, since their own files import torch; a test holds the two alike.
HEADS = ("linear", "mlp")
OPTIMIZERS = ("adamw", "sgd")
SOLVERS = ("lbfgs",)
CLOSED = ("ridge", "lda", "prototype")
PROBES = ("logistic", *CLOSED, "knn")


FLOATS = "3.4e38"  # the largest that single floats hold
VoteWeights = Literal["uniform", "distance"]
Metric = Literal["euclidean", "cosine"]
Fold = int | Literal["all"] | list[int] | None


TRACKING_URI = doc("tracking URI (default: MLFLOW_TRACKING_URI, else a sqlite file)")
STORE = {entry.name: entry for entry in fields(StoreSpec)}


def store_key(name: str, **default: Any) -> Any:
    """Return the field of a key that is the store's: its default, its line and its interval.

    Parameters
    ----------
    name
        Of the field of `StoreSpec`.
    default
        ``default_factory``, where what stands for nothing is another value here.
    """
    spec = STORE[name]
    if not default and spec.default_factory is not NO_DEFAULT:
        default = {"default_factory": spec.default_factory}
    return field(metadata=spec.metadata, **(default or {"default": spec.default}))


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
    tiles: Uris = store_key("tiles")
    test_tiles: Uris = store_key("test_tiles")
    predict_tiles: Uris = store_key("predict_tiles")
    embeddings: EncoderUris = store_key("embeddings")
    test_embeddings: EncoderUris = store_key("test_embeddings")
    encoder: str | None = store_key("encoder")
    slides: Uris = store_key("slides")
    columns: Columns = field(
        default_factory=Columns, metadata=doc("names of columns, where they are others")
    )
    slide_id_strip: str | None = store_key("slide_id_strip")
    snapshot: str | None = field(
        default=None,
        metadata=doc("tag, digest or run of a snapshot to train on without the artifacts"),
    )
    synthetic: SyntheticConfig = field(
        default_factory=SyntheticConfig, metadata=doc("shape of a synthetic cohort")
    )


@dataclass
class Server:
    """Where runs are recorded, of scripts that look up what is there."""

    uri: str | None = field(default=None, metadata=TRACKING_URI)


@dataclass
class Tracking:
    """Where runs are recorded."""

    enabled: bool = field(default=True, metadata=doc("false: no MLflow, files stay in `output`"))
    uri: str | None = field(default=None, metadata=TRACKING_URI)
    experiment: str = field(default="tissue-probe", metadata=doc("MLflow experiment"))
    run_name: str | None = field(default=None, metadata=doc("name of the run"))
    model: str = field(default="tissue-probe", metadata=doc("name in the model registry"))
    register: bool = field(default=True, metadata=doc("register the model of a fit"))
    system_metrics: bool = field(
        default=False, metadata=doc("record processor, memory, disk, network and GPUs by time")
    )
    onnx: bool = field(
        default=False, metadata=doc("write the model of a fit as model.onnx too, in its run")
    )


@dataclass
class Sweep:
    """Values to try side by side, in one pass over the embeddings: every combination of them."""

    learning_rate: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)
    label_smoothing: list[float] = field(default_factory=list)
    neighbours: list[int] = field(default_factory=list)
    neighbour_weights: list[VoteWeights] = field(default_factory=list)
    neighbour_metric: list[Metric] = field(default_factory=list)
    train_fraction: list[float] = field(
        default_factory=list,
        metadata=doc("shares of the slides to train on, drawn by slide", "(0, 1]"),
    )
    shots: list[int] = field(
        default_factory=list,
        metadata=doc("slides of each class to train on: a few-shot curve", COUNTS),
    )
    draw: list[int] = field(
        default_factory=list,
        metadata=doc("numbers of random draws of these slides: [0,1,2,3,4]", "[0, 2147483647]"),
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
    """Every key, its type and its default.

    Attributes
    ----------
    presets
        Values of keys that ``data=`` alone gives, by which runs on a cohort do not differ. No key:
        it is not recorded, and a configuration that is made of another one has none.
    """

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
    seed: int = store_key("seed")
    data: Data = field(
        default_factory=Data, metadata=doc("artifacts; data=NAME picks configs/data/NAME.yaml")
    )
    class_indices: dict[str, int] = store_key("class_indices", default_factory=dict)
    thresholds: dict[str, float] = store_key("thresholds", default_factory=dict)
    tissue_prop_min: float = store_key("tissue_prop_min")
    single_class: bool = store_key("single_class")
    label_rule: LabelRule = store_key("label_rule")
    absent_coverage: AbsentCoverage = store_key("absent_coverage")
    merge: dict[str, list[str]] = store_key("merge")
    drop: list[str] = store_key("drop")
    where: str | None = store_key("where")
    kfold_strategy: Strategy = store_key("kfold_strategy")
    kfold_group: str = store_key("kfold_group")
    fold_rule: FoldRule = store_key("fold_rule")
    folds: Growth = store_key("folds")
    k: int = store_key("k")
    balance: Balance = store_key("balance")
    allow_empty_class: bool = store_key("allow_empty_class")
    leakage: Leakage = store_key("leakage")
    allow_missing: float = store_key("allow_missing")
    storage: Storage = store_key("storage")
    backend: Engine = store_key("backend")
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
    neighbour_weights: VoteWeights = field(
        default="uniform", metadata=doc("a neighbour's vote: one, or 1 / distance")
    )
    neighbour_metric: Metric = field(
        default="euclidean", metadata=doc("which neighbours are the nearest")
    )
    calibrate: bool = field(
        default=False,
        metadata=doc("fit a temperature on validation, or out of fold; it is in the weights"),
    )
    abstain_below: float | None = field(
        default=None, metadata=doc("write review.parquet: tiles less sure than this", "(0, 1]")
    )
    confusion_every: int | None = field(
        default=None,
        metadata=doc(
            "epochs between confusion matrices drawn beside the best and the last", COUNTS
        ),
    )
    evidence: Evidence = field(
        default_factory=Evidence, metadata=doc("intervals, figures by group")
    )
    metrics: Literal["short", "all"] = field(
        default="short",
        metadata=doc("short: about thirty, the rest in metrics.json; all: every one is logged"),
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
    schedule: Literal["constant", "cosine", "linear"] = field(
        default="constant",
        metadata=doc("learning rate over max_epochs, after the warm-up (adamw, sgd)"),
    )
    warmup_epochs: int = field(
        default=0, metadata=doc("epochs in which the learning rate rises", "[0, 2147483647]")
    )
    batch_size: int = field(
        default=1024, metadata=doc("tiles a step, over all processes together", COUNTS)
    )
    max_epochs: int = field(default=500, metadata=doc("most epochs", COUNTS))
    monitor: Literal["validation/loss", "validation/f1_macro", "train/loss"] = field(
        default="validation/loss", metadata=doc("what says which epoch is kept, and when to stop")
    )
    patience: int = field(
        default=1, metadata=doc("epochs without a better `monitor` before stopping", COUNTS)
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

    def __post_init__(self) -> None:
        self.presets: Mapping[str, Any] = {}

    @property
    def class_names(self) -> list[str]:
        """The class names by index."""
        return sorted(self.class_indices, key=self.class_indices.__getitem__)
