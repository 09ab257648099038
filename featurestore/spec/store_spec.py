"""What determines the views, and what is chosen from them: plain values, no engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from yaml import Node

from featurestore.errors import ConfigError
from featurestore.spec import bounds
from featurestore.spec.bounds import FOLDS, SEEDS, within
from featurestore.spec.literals import Balance, Engine, LabelRule, Leakage, Storage, Strategy
from featurestore.spec.typed import EMPTY, Reader, composed, represented

ARTIFACTS = ("tiles", "test_tiles", "predict_tiles", "embeddings", "test_embeddings", "slides")
TRAINING = (
    "mode", "fold", "sweep", "final", "checkpoint", "output", "head", "hidden", "normalize",
    "precision", "probe", "neighbours", "calibrate", "abstain_below", "evidence", "maps",
    "optimizer", "learning_rate", "weight_decay", "label_smoothing", "batch_size", "max_epochs",
    "patience", "min_delta", "resume", "stream", "threads", "memory_limit", "tracking",
    "data.name", "data.builder", "data.runs", "data.synthetic",
)  # fmt: skip
"""Keys of a configuration that are none of the store's. A test holds them and train/ alike."""


@dataclass(frozen=True)
class StoreSpec:
    """All that determines the views: where the artifacts are, and the rules.

    Parameters
    ----------
    tiles, test_tiles, predict_tiles
        URIs of tiles artifacts: for folds, held out, and without need of labels.
    embeddings, test_embeddings
        URIs of embeddings; the test tiles' are among ``embeddings`` unless said otherwise.
    slides
        URI of the slides artifact, shown to SQL.
    class_indices, thresholds
        Class name to target and to least coverage.
    tissue_prop_min, single_class, label_rule
        See `featurestore.views.thresholds.threshold_view`.
    kfold_strategy, kfold_group, k, seed, balance, allow_empty_class
        See `featurestore.folds.assign.assign_folds`.
    storage
        Type in which embeddings are materialised.
    leakage
        Whether a leak that the strategy promises against is refused.
    backend
        The engine that computes the views.
    """

    tiles: str | None = None
    test_tiles: str | None = None
    predict_tiles: str | None = None
    embeddings: str | None = None
    test_embeddings: str | None = None
    slides: str | None = None
    class_indices: Mapping[str, int] | None = None
    thresholds: Mapping[str, float] | None = None
    tissue_prop_min: float = field(default=0.2, metadata=within("[0, inf)"))
    single_class: bool = True
    label_rule: LabelRule = "dominant"
    kfold_strategy: Strategy = "stratified"
    kfold_group: str = "slide_id"
    k: int = field(default=5, metadata=within(FOLDS))
    seed: int = field(default=0, metadata=within(SEEDS))
    balance: Balance = "greedy"
    allow_empty_class: bool = False
    storage: Storage = "float32"
    leakage: Leakage = "refuse"
    backend: Engine = "duckdb"

    def __post_init__(self) -> None:
        """Bring class names to the Unicode form in which names of columns are read.

        Raises
        ------
        ConfigError
            A URI is empty, or two names are one class.
        """
        for name in ARTIFACTS:
            if getattr(self, name) == "":
                raise ConfigError(
                    f"data.{name} has no value",
                    found=f"data.{name}: ''",
                    fix=f"name a URI, or write data.{name}=null to unset it",
                )
        for name in ("class_indices", "thresholds"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _by_composed(values, name))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "StoreSpec":
        """Pick a spec out of a resolved configuration: its root, and its section ``data``.

        Raises
        ------
        ConfigError
            A key that is not known, with the nearest one, or a value of another type.
        """
        return cls._read(represented(config), "the configuration")

    @classmethod
    def from_yaml(cls, content: bytes, source: str) -> "StoreSpec":
        """Pick a spec out of a resolved configuration in YAML: text stays as it is written.

        Parameters
        ----------
        source
            The name of the file, for errors. These are the ones of `from_config`.
        """
        return cls._read(Reader(source).root(content), source)

    @classmethod
    def _read(cls, root: Node, source: str) -> "StoreSpec":
        kinds = get_type_hints(cls)
        places = {name: f"data.{name}" if name in ARTIFACTS else name for name in kinds}
        reader = Reader(source, (*places.values(), *TRAINING))
        named: dict[str, Node] = reader.entries(root)
        for key in [
            key for key in named if key != "data" and (key not in reader.keys or "." in key)
        ]:
            raise reader.unknown(key)
        for name, node in reader.entries(named.pop("data", EMPTY), "data").items():
            if (key := f"data.{name}") not in reader.keys:
                raise reader.unknown(key)
            named[key] = node
        values = {
            name: reader.value(kinds[name], named[key], key)
            for name, key in places.items()
            if key in named
        }
        for name, interval in bounds.of(cls).items():
            bounds.check([(name, values.get(name))], interval)
        return cls(**values)


def _by_composed(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        form = composed(key)
        if form in found:
            raise ConfigError(
                f"{name}.{form} is set twice",
                found=f"{found[form]}, and {value}, in two spellings of the same letters",
                fix="leave one of them out",
            )
        found[form] = value
    return found
