"""What determines the views, and what is chosen from them: plain values, no engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from yaml import Node

from featurestore.errors import ArtifactError, ConfigError
from featurestore.spec import bounds, places
from featurestore.spec.encoders import check_encoders, encoder_of, kind_of
from featurestore.spec.keys import doc
from featurestore.spec.literals import Engine, Growth, Leakage, Storage
from featurestore.spec.rules import Artifacts, FoldRules, LabelRules, Uris, field_names
from featurestore.spec.trees import is_one_value
from featurestore.spec.typed import EMPTY, Reader, composed, nearest, represented

ARTIFACTS = field_names(Artifacts)
COLUMNS = ("slide_id", "x", "y", "embedding")
DATA = (
    *ARTIFACTS,
    "columns",
    "slide_id_strip",
    "encoder",
)  # below the section data of a configuration
TRAINING = (
    "mode", "fold", "sweep", "final", "checkpoint", "output", "head", "hidden", "normalize",
    "precision", "probe", "neighbours", "calibrate", "abstain_below", "confusion_every", "evidence",
    "metrics", "maps",
    "optimizer", "learning_rate", "weight_decay", "label_smoothing", "batch_size", "max_epochs",
    "monitor", "patience", "min_delta", "resume", "stream", "store", "threads", "memory_limit",
    "tracking", "schedule", "warmup_epochs", "neighbour_weights", "neighbour_metric",
    "data.name", "data.builder", "data.runs", "data.snapshot", "data.synthetic",
)  # fmt: skip
"""Keys of a configuration that are none of the store's. A test holds them and train/ alike."""


@dataclass(frozen=True)
class StoreSpec(FoldRules, LabelRules, Artifacts):
    """All that determines the views: where the artifacts are, and the rules.

    Its fields are those of `Artifacts`, `LabelRules` and `FoldRules`, in this order, and some of
    its own. It is passed as it is to whoever asks for one of them.

    Parameters
    ----------
    storage
        Type in which embeddings are materialised.
    leakage
        Whether a leak that the strategy promises against is refused.
    allow_missing
        The largest share of the tiles of a cohort, and of each slide of it, that may be dropped for
        want of an embedding; 1 lets all but an empty join pass. It decides what is refused, nothing
        of what is made.
    backend
        The engine that computes the views.
    folds
        ``extend`` takes the latest assignment of these tiles under these rules, or extends that of
        an earlier cohort; ``new`` assigns every group anew, and later stores go on from there.
    columns
        Names of columns in the files of tiles and embeddings, by those of the contract.
    slide_id_strip
        A suffix, such as ``.svs``, that is taken away from the names of slides in all artifacts; it
        is part of the digests of these.
    encoder
        Whose embeddings are read, where there are several encoders. The tiles are those that all
        of them have.

    Examples
    --------
    >>> from dataclasses import replace
    >>> spec = StoreSpec(
    ...     tiles="kfold_tiles.parquet",
    ...     embeddings="embeddings/",
    ...     class_indices={"Fat": 0, "Nerve": 1},
    ...     thresholds={"Fat": 0.6, "Nerve": 0.0},
    ...     kfold_strategy="stratified_group",
    ... )
    >>> spec.k, spec.label_rule, spec.backend
    (5, 'dominant', 'duckdb')
    >>> replace(spec, k=3).k
    3
    >>> StoreSpec.from_config({"data": {"tiles": "kfold_tiles.parquet"}, "k": 4}).tiles
    'kfold_tiles.parquet'
    >>> StoreSpec.from_config({"kk": 4})
    Traceback (most recent call last):
        ...
    featurestore.errors.ConfigError: ...
    """

    storage: Storage = field(
        default="float32", metadata=doc("type in which embeddings are materialised")
    )
    leakage: Leakage = field(
        default="refuse",
        metadata=doc("what to do about a leak that the strategy promises against"),
    )
    allow_missing: float = field(
        default=0.5,
        metadata=doc("share of a cohort's or a slide's tiles that may lack embeddings", "[0, 1]"),
    )
    backend: Engine = field(
        default="duckdb", metadata=doc("engine of the views; see docs/spark.md")
    )
    folds: Growth = field(
        default="extend",
        metadata=doc("extend: what had a fold keeps it; new: assign anew, and go on from there"),
    )
    columns: Mapping[str, str | None] = field(
        default_factory=dict, metadata=doc("names of columns, where they are others")
    )
    slide_id_strip: str | None = field(
        default=None, metadata=doc("suffix to take away from slides' names, in all artifacts: .svs")
    )
    encoder: str | None = field(
        default=None,
        metadata=doc("which of several encoders (fit: one after another; else the checkpoint's)"),
    )

    def __post_init__(self) -> None:
        """Bring class names to the Unicode form in which names of columns are read.

        Raises
        ------
        ConfigError
            A URI is empty, two names are one class, groups are to be hashed, or a name is given to
            a column that has none; or as `featurestore.spec.encoders.check_encoders`.
        """
        for name in self.columns:
            if name not in COLUMNS:
                raise ConfigError(
                    f"There is no column {name!r} whose name could be given",
                    found=f"data.columns.{name}{nearest(name, COLUMNS)}",
                    fix=f"name {', '.join(COLUMNS)}",
                )
        for name in ARTIFACTS:
            uris = getattr(self, name)
            if uris in ("", []) or (isinstance(uris, list) and "" in uris):
                raise ConfigError(
                    f"data.{name} has no value",
                    found=f"data.{name}: {uris!r}",
                    fix=f"name a URI, or write data.{name}=null to unset it",
                )
        check_encoders(self.embeddings, self.test_embeddings, self.encoder)
        if self.fold_rule == "hash" and self.kfold_strategy != "stratified":
            raise ConfigError(
                "fold_rule=hash takes tiles one by one, which kfold_strategy=stratified_group "
                "keeps together",
                found=f"kfold_strategy={self.kfold_strategy}",
                fix="set fold_rule=sklearn, or kfold_strategy=stratified",
            )
        for name in ("class_indices", "thresholds", "merge"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _by_composed(values, name))
        merge = {name: list(map(composed, members)) for name, members in self.merge.items()}
        object.__setattr__(self, "merge", merge)
        object.__setattr__(self, "drop", list(map(composed, self.drop)))

    @property
    def encoders(self) -> tuple[str, ...]:
        """The names of the encoders; none where the embeddings are one artifact."""
        return tuple(self.embeddings) if isinstance(self.embeddings, Mapping) else ()

    def artifacts(self, kind: str) -> tuple[str, ...]:
        """Return the names of what is behind a key of ``data``: of several encoders one each.

        That of the encoder which is read is the key itself; the others' are
        ``embeddings/<encoder>``. There is none where the key is not set.
        """
        uris = getattr(self, kind)
        if isinstance(uris, Mapping):
            return tuple(kind if name == self.encoder else f"{kind}/{name}" for name in uris)
        return (kind,) if uris else ()

    def uri(self, artifact: str) -> Uris:
        """Return where an artifact is, by its name among `artifacts`; None for nowhere."""
        uris = getattr(self, kind_of(artifact))
        if isinstance(uris, Mapping):
            return uris.get(encoder_of(artifact) or self.encoder or "")
        return uris

    def uris(self) -> dict[str, str | list[str]]:
        """Return the URI of each artifact that there is, by its name among `artifacts`."""
        names = [name for kind in ARTIFACTS for name in self.artifacts(kind)]
        return {name: uri for name in names if (uri := self.uri(name))}

    def check_artifacts(self) -> None:
        """Refuse a spec of no artifact at all, as one that lacks tiles is refused.

        Raises
        ------
        ArtifactError
            None is configured.
        """
        if not self.uris():
            raise not_configured("tiles")

    def title(self, artifact: str) -> str:
        """Return what an artifact is called in a sentence."""
        kind = kind_of(artifact).replace("_", " ")
        several = isinstance(getattr(self, kind_of(artifact)), Mapping)
        encoder = encoder_of(artifact) or (self.encoder if several else None)
        return f"{kind} of {encoder}" if encoder else kind

    def key(self, artifact: str) -> str:
        """Return the key that names an artifact, for example ``data.embeddings.virchow2``."""
        kind, encoder = kind_of(artifact), encoder_of(artifact)
        several = isinstance(getattr(self, kind), Mapping)
        name = encoder or (self.encoder if several else None)
        return f"data.{kind}.{name}" if name else f"data.{kind}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "StoreSpec":
        """Pick a spec out of a resolved configuration: its root, and its section ``data``.

        Raises
        ------
        ConfigError
            A key that is not known, with the nearest one, or a value of another type.
        """
        return cls(**cls._values(represented(config), "the configuration"))

    @classmethod
    def from_yaml(cls, content: bytes, source: str) -> "StoreSpec":
        """Pick a spec out of a resolved configuration in YAML: text stays as it is written.

        Parameters
        ----------
        source
            The name of the file: for errors, which are those of `from_config`, and for
            ``data.root``, see `featurestore.spec.places`.
        """
        return cls(**cls.values_in(content, source))

    @classmethod
    def values_in(cls, content: bytes, source: str, file: Path | None = None) -> dict[str, Any]:
        """Return the fields that a configuration in YAML sets, as `from_yaml`.

        Parameters
        ----------
        file
            Where it lies, if ``source`` is another name of it.
        """
        root, place = places.divided(Reader(source), Reader(source).root(content))
        return places.placed(cls._values(root, source), file or Path(source), place)

    def overlaid(self, values: Mapping[str, Any]) -> "StoreSpec":
        """Return a spec with some fields set: mappings are joined, all else is replaced.

        So are encoders, which are one value: see `featurestore.spec.trees.is_one_value`.
        """
        changes: dict[str, Any] = {}
        kinds = get_type_hints(type(self))
        for name, value in values.items():
            before = getattr(self, name)
            joined = isinstance(value, Mapping) and isinstance(before, Mapping)
            if joined and not is_one_value(kinds[name]):
                changes[name] = {**before, **{composed(key): one for key, one in value.items()}}
            else:
                changes[name] = value
        return replace(self, **changes)

    @classmethod
    def _values(cls, root: Node, source: str) -> dict[str, Any]:
        kinds = get_type_hints(cls)
        reader = Reader(source, (*KEYS.values(), places.KEY, *TRAINING))
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
            for name, key in KEYS.items()
            if key in named
        }
        check_bounds(values)
        return values


def not_configured(artifact: str, wrong: str = "") -> ArtifactError:
    """Return the refusal of what takes an artifact that is not set.

    Parameters
    ----------
    wrong
        What takes it, in a sentence, if that is known.
    """
    makes = "; or hold some of the tiles out, whole groups: `featurestore split`"
    return ArtifactError(
        wrong or f"This needs the artifact {artifact}, and none is configured",
        found=f"data.{artifact} is not set",
        fix=f"set data.{artifact} to a URI, for example data.{artifact}=runs:/RUN/{artifact}"
        + (makes if artifact == "test_tiles" else ""),
    )


KEYS = {name: f"data.{name}" if name in DATA else name for name in field_names(StoreSpec)}
"""The key in a configuration of each field of a spec."""


def check_bounds(values: Mapping[str, Any]) -> None:
    """Refuse numbers out of their bounds, by the names of their fields."""
    for name, interval in bounds.of(StoreSpec).items():
        value = values.get(name)
        named = value if isinstance(value, Mapping) else {}
        bounds.check([(f"{name}.{one}", number) for one, number in named.items()], interval)
        bounds.check([(name, value)], interval)


def _by_composed(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    by_form: dict[str, Any] = {}
    for key, value in values.items():
        form = composed(key)
        if form in by_form:
            raise ConfigError(
                f"{name}.{form} is set twice",
                found=f"{by_form[form]}, and {value}, in two spellings of the same letters",
                fix="leave one of them out",
            )
        by_form[form] = value
    return by_form
