"""Every key of the configuration: its type, its default and the line that --help prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from train.config.sections import (
    FLOATS,
    Data,
    Evidence,
    Maps,
    Metric,
    Sweep,
    Tracking,
    VoteWeights,
)
from train.config.store_keys import store_key

__all__ = ["MISSING", "Config", "ConfigError", "doc"]  # the errors and values of other files' keys

# Spelled here too, since their own files import torch; a test holds the two alike.
HEADS = ("linear", "mlp")
OPTIMIZERS = ("adamw", "sgd")
SOLVERS = ("lbfgs",)
CLOSED = ("ridge", "lda", "prototype")
PROBES = ("logistic", *CLOSED, "knn")
Fold = int | Literal["all"] | list[int] | None


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
