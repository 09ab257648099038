"""What a training set is made of and by which rules, part by part.

Whoever needs the names of the rules derives them from these classes by `field_names`: a rule that
is added here is hashed, recorded and compared wherever the others are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from featurestore.spec.bounds import FOLDS, SEEDS
from featurestore.spec.keys import doc
from featurestore.spec.literals import AbsentCoverage, Balance, FoldRule, LabelRule, Strategy

Uris = str | list[str] | None
"""Where an artifact is: nowhere, at one place, or at several."""
EncoderUris = str | list[str] | dict[str, str] | None
"""The same of embeddings; or of several encoders, a URI by name."""


@dataclass(frozen=True)
class Artifacts:
    """Where the data are.

    Parameters
    ----------
    tiles, test_tiles, predict_tiles
        URIs of tiles artifacts: for folds, held out, and without need of labels.
    embeddings, test_embeddings
        URIs of embeddings; the test tiles' are among ``embeddings`` unless said otherwise. Several
        encoders' are URIs by name: a tile is kept that all of them have.
    slides
        URI of the slides artifact, shown to SQL.

    Each is one URI, or a list of them, for example one a split: all their files together, see
    `featurestore.io.sources.united`.
    """

    tiles: Uris = field(default=None, metadata=doc("training tiles with coverages"))
    test_tiles: Uris = field(default=None, metadata=doc("held-out tiles"))
    predict_tiles: Uris = field(
        default=None, metadata=doc("tiles for mode=predict, labels not needed")
    )
    embeddings: EncoderUris = field(
        default=None,
        metadata=doc("embeddings, a folder; [one,a,split]; or several encoders': {name: URI}"),
    )
    test_embeddings: EncoderUris = field(
        default=None, metadata=doc("embeddings of held-out tiles, if elsewhere")
    )
    slides: Uris = field(default=None, metadata=doc("slides, for SQL and maps"))


@dataclass(frozen=True)
class LabelRules:
    """By which rules a tile is labelled, and kept.

    Parameters
    ----------
    class_indices
        Class name to target, a permutation of 0 .. K-1.
    thresholds
        Class name to least coverage, in [0, 1].
    tissue_prop_min
        Least sum of coverages, see `featurestore.views.precision.floor`.
    single_class
        Whether a tile with coverage of more than one class is dropped (``multi_class``).
    label_rule
        ``dominant`` labels a tile with its largest coverage, and drops it where that is below the
        class's threshold; ``any_passing`` labels it with the largest among the classes that reach
        their threshold, and drops it where none does.
    absent_coverage
        Of a class whose column some files of tiles lack: ``refuse`` them, or take it to cover
        ``zero`` of their tiles.
    merge
        Class name to the classes of the data that it takes in: their coverages are added up, and
        to its own where the data have it, before every other rule.
    drop
        Classes that tiles may have and that nobody trains on: a tile of one is dropped
        (``dropped_class``). They have neither index nor threshold.
    where
        One SQL expression over the columns of tiles and slides; a tile for which it does not hold
        is dropped (``filtered``), see `featurestore.views.filters`.
    """

    class_indices: Mapping[str, int] | None = field(
        default=None, metadata=doc("class -> target, 0 .. K-1; classes=NAME")
    )
    thresholds: Mapping[str, float] | None = field(
        default=None, metadata=doc("class -> least coverage; 0.0 never matches 0.0", "[0, 1]")
    )
    tissue_prop_min: float = field(default=0.2, metadata=doc("least sum of coverages", "[0, inf)"))
    single_class: bool = field(default=True, metadata=doc("drop tiles with more than one class"))
    label_rule: LabelRule = field(default="dominant", metadata=doc("which class is the label"))
    absent_coverage: AbsentCoverage = field(
        default="refuse",
        metadata=doc("a class whose column some files lack: refuse, or zero of their tiles"),
    )
    merge: Mapping[str, list[str]] = field(
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


@dataclass(frozen=True)
class FoldRules:
    """By which rules the tiles that are kept are assigned to folds.

    Parameters
    ----------
    kfold_strategy
        ``stratified`` (`sklearn.model_selection.StratifiedKFold`, tiles on their own) or
        ``stratified_group`` (`sklearn.model_selection.StratifiedGroupKFold`).
    kfold_group
        Column that must not be divided under ``stratified_group``.
    fold_rule
        ``sklearn`` assigns, and keeps the assignment, which a cohort that grows extends; ``hash``
        takes each tile's fold from its key alone (`featurestore.views.folds.hashed_fold_view`),
        under ``stratified``.
    k
        Number of folds.
    seed
        Seed of the shuffle, or of the hash.
    balance
        ``greedy`` takes what scikit-learn assigns; ``optimal`` improves on it under
        ``stratified_group`` until no exchange of groups makes folds more even
        (`featurestore.folds.balance.optimal_folds`).
    allow_empty_class
        Whether a fold may be without a tile of a class; one of scikit-learn's ``stratified`` is
        without one only where a cohort has shrunk.
    """

    kfold_strategy: Strategy = field(
        default="stratified", metadata=doc("how folds are assigned where the tiles bring none")
    )
    kfold_group: str = field(
        default="slide_id", metadata=doc("column that stratified_group keeps together")
    )
    fold_rule: FoldRule = field(
        default="sklearn", metadata=doc("stratified: scikit-learn's folds, or a hash of the key")
    )
    k: int = field(default=5, metadata=doc("number of folds", FOLDS))
    seed: int = field(
        default=0, metadata=doc("seed of folds, order of tiles and initial weights", SEEDS)
    )
    balance: Balance = field(
        default="greedy",
        metadata=doc("stratified_group: scikit-learn's folds, or evened out"),
    )
    allow_empty_class: bool = field(default=False, metadata=doc("accept a fold without a class"))


def field_names(*parts: type) -> tuple[str, ...]:
    """Return the names of the fields of some dataclasses, in their order."""
    return tuple(entry.name for part in parts for entry in fields(part))


FILTERS = ("tissue_prop_min", "single_class", "where")
"""The label rules that decide which tiles are kept, and nothing of a label or target."""
LABELLING = tuple(name for name in field_names(LabelRules) if name not in FILTERS)
"""The label rules that decide a target: all but the filters."""
KEEPING = tuple(name for name in field_names(LabelRules) if name != "class_indices")
"""The label rules that decide which tiles of given classes are kept, and as what."""


def values_of(rules: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Return some fields of a value, by their names."""
    return {name: getattr(rules, name) for name in names}
