"""The sections of the configuration: keys that stand below one, as in ``tracking.uri``."""

from dataclasses import dataclass, field
from typing import Literal

from featurestore.spec.bounds import COUNTS
from featurestore.spec.keys import MISSING, doc
from featurestore.spec.literals import Strategy
from featurestore.spec.rules import EncoderUris, Uris
from featurestore.spec.synthetic import SyntheticConfig
from train.config.store_keys import store_key

FLOATS = "3.4e38"  # the largest that single floats hold
VoteWeights = Literal["uniform", "distance"]
Metric = Literal["euclidean", "cosine"]
TRACKING_URI = doc("tracking URI (default: MLFLOW_TRACKING_URI, else a sqlite file)")


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
