"""Candidate and champion on trial: both networks on the same tiles, and what the tiles are."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np

from featurestore.backend import errors
from featurestore.errors import ArtifactError, EmbeddingError, UnknownClassError
from featurestore.io.progress import Rows
from featurestore.snapshots.build import materialise
from featurestore.snapshots.tile_set import TileSet
from featurestore.spec.rules import KEEPING, LabelRules
from featurestore.spec.store_spec import not_configured
from featurestore.store import FeatureStore
from featurestore.views.leakage import group_counts, groups_in_train_and_test
from train.config import text
from train.config.load import recorded
from train.config.schema import Config
from train.config.store import open_store
from train.config.sweep import chosen_config
from train.evaluation.comparison import differences
from train.evaluation.evaluate import evaluate
from train.evaluation.predict import predict_tile_set
from train.models import checkpoint
from train.models.checkpoint import ModelSpec, TrainedModel
from train.promotion.checks import Evidence
from train.tracking.registry import Version
from train.tracking.runs import RunRecord, load_run, trained_values

GROUPS = {"slides": "slide_id", "patients": "patient_id"}


@dataclass(frozen=True)
class CandidateEvaluation:
    """How a candidate does on the test view, beside the champion.

    Parameters
    ----------
    evidence
        What the gate judges.
    run
        What the candidate's run recorded.
    uris
        Where the data were read, by name.
    rules
        By which test tiles are kept and labelled.
    slides
        How many the test view has.
    clusters
        What intervals are over: slides, patients.
    notes
        What a reader of the figures should know.
    """

    evidence: Evidence
    run: RunRecord
    uris: dict[str, str]
    rules: dict[str, Any]
    slides: int
    clusters: str
    notes: Sequence[str] = ()


def recorded_config(candidate: Version, changes: list[str]) -> tuple[RunRecord, Config]:
    """Return what the candidate's run recorded, and how it was trained, with changes on top.

    Of a sweep that is the configuration of its best setting, see
    `train.config.sweep.trained_config`: test tiles are labelled by the rules that it knows.

    Raises
    ------
    ArtifactError
        It was registered without a run of train/probe.py.
    """
    run = load_run(candidate.run) if candidate.run else None
    if run is None or not run.config:
        raise ArtifactError(
            f"It is not known what {candidate} of {candidate.model} was trained on",
            found=f"run {candidate.run} without config.yaml" if run else "no run",
            fix="register a version with train/probe.py",
        )
    trained = chosen_config(recorded(run.config, []), run.params.get("best_setting"))
    return run, recorded(text.text(trained), changes)


def load_candidate(
    candidate: Path, champion: Path | None
) -> tuple[TrainedModel, TrainedModel | None]:
    """Read both networks from the files of their versions.

    Raises
    ------
    UnknownClassError
        They know different classes.
    EmbeddingError
        They are for embeddings of different lengths.
    """
    file = Path("extra_files") / checkpoint.FILE
    new = checkpoint.load(candidate / file)
    old = checkpoint.load(champion / file) if champion else None
    if old and old.spec.classes != new.spec.classes:
        raise UnknownClassError(
            "Candidate and champion know different classes",
            found=f"{', '.join(new.spec.classes)}; {', '.join(old.spec.classes)}",
            fix="promote it under another alias or model name: it answers another question",
        )
    if old and old.spec.dim != new.spec.dim:
        raise EmbeddingError(
            "Candidate and champion are for embeddings of different lengths",
            found=f"{new.spec.dim} and {old.spec.dim}",
            fix="promote it under another alias: whoever serves it must embed tiles otherwise",
        )
    return new, old


def evaluate_candidate(
    new: TrainedModel,
    old: TrainedModel | None,
    run: RunRecord,
    config: Config,
    rows: Rows,
) -> CandidateEvaluation:
    """Apply both networks to the test view of a configuration, and look for leaks into it.

    Parameters
    ----------
    rows
        Shows how far the embeddings are read.

    Raises
    ------
    FeatureStoreError
        There is no test view, or it is not for these networks.
    """
    config = replace(config, data=replace(config.data, snapshot=None))  # test tiles are named anew
    store = open_store(config)
    tiles, read = test_view(store, rows, config.evidence.columns())
    check_fits(new.spec, tiles, config)
    shared, training = leaks(store)
    sources = read | training
    settings = replace(config.evidence, groups=[])  # which nobody judges by
    candidate, _ = predict_tile_set(new, tiles, config)
    champion = differing = None
    if old:
        of_champion, _ = predict_tile_set(old, tiles, config)
        champion = evaluate(of_champion, settings).metrics
        differing = differences(of_champion, candidate, settings.ordered)
    evidence = Evidence(
        classes=candidate.classes,
        tiles=np.bincount(candidate.target, minlength=len(candidate.classes)).tolist(),
        candidate=evaluate(candidate, settings).metrics,
        champion=champion,
        differences=differing,
        shared=shared,
        recorded=run.data,
        read={name: digest for name, (_, digest) in sorted(sources.items())},
        earlier=store.sources.earlier_digests(sources, divided=False),
    )
    uris = {name: uri for name, (uri, _) in sources.items()}
    rules = _rules(text.plain(config))
    slides, clusters = len(candidate.slides), candidate.cluster_name
    return CandidateEvaluation(evidence, run, uris, rules, slides, clusters)


def test_view(
    store: FeatureStore, rows: Rows, more: Sequence[str] = ()
) -> tuple[TileSet, dict[str, tuple[str, str]]]:
    """Return the test tiles, and URI and digest of what they were read from.

    Embeddings of training tiles are neither asked for nor converted, if they are elsewhere.

    Parameters
    ----------
    more
        Further columns of the tiles or their slides.
    """
    if store.spec.test_tiles is None:
        raise not_configured("test_tiles", "There is no test view to judge by")
    spec = replace(store.spec, tiles=None)
    held_out = FeatureStore(spec, store.threads, store.memory_limit)
    with warnings.catch_warnings():
        # Of training tiles, which this view leaves out.
        warnings.filterwarnings("ignore", r"embeddings( of .+)? of no tile")
        tiles = materialise(held_out, rows).test_set(more)
    return tiles, held_out.sources.digests()


def check_fits(spec: ModelSpec, tiles: TileSet, config: Config) -> None:
    """Refuse a test view of other classes, or with embeddings of another length."""
    if config.class_names != spec.classes:
        raise UnknownClassError(
            "The test view has other classes than the candidate",
            found=f"{', '.join(config.class_names)}; {', '.join(spec.classes)}",
            fix="register the version again with train/probe.py",
        )
    if tiles.matrix.dim != spec.dim:
        raise EmbeddingError(
            "The test view has embeddings of another length than the candidate's",
            found=f"{tiles.matrix.dim} in the test view, {spec.dim} in the candidate",
            fix="set data.test_embeddings to those of the same foundation model",
        )


def leaks(store: FeatureStore) -> tuple[dict[str, int | None], dict[str, tuple[str, str]]]:
    """Count the slides and patients both in the training tiles and in the test view.

    Every row of the training tiles counts: which fold was trained on and which rule kept a tile
    does not matter. None where a column is not in both.
    """
    if store.spec.tiles is None:
        return dict.fromkeys(GROUPS), {}
    training = store.view("tiles").mutate(dropped_by=ibis.null("string"))
    test = store.view("test_thresholds")
    counts: dict[str, int | None] = {}
    for name, group in GROUPS.items():
        both = group in training.columns and group in test.columns
        if not both:
            counts[name] = None
            continue
        ours, theirs = (group_counts(tiles, [group]) for tiles in (training, test))
        common = groups_in_train_and_test(ours, theirs, group)
        with errors.translated():
            counts[name] = int(common.count().to_pyarrow().as_py())
    return counts, store.sources.digests()


def training_differences(run: RunRecord, champion: Version) -> list[str]:
    """Return in what the champion was trained otherwise than a candidate's run, if it is known."""
    trained = load_run(champion.run) if champion.run else None
    if trained is None or not trained.config:
        return [f"it is not known what the champion, {champion}, was trained on"]
    new, old = (_rules(trained_values(each, KEEPING)) for each in (run, trained))
    notes = [
        f"the champion was trained under {name} {old[name]}, the candidate under {new[name]}"
        for name in KEEPING
        if new[name] != old[name]
    ]
    if run.data.get("embeddings") != trained.data.get("embeddings"):
        notes.append(
            "the champion was trained on other embeddings: of a cohort that has grown since, or of "
            "another foundation model, which it does not know"
        )
    return notes


def _rules(settings: dict[str, Any]) -> dict[str, Any]:
    # What a run has not recorded was no rule yet: its default is what was done.
    return {name: settings.get(name, getattr(LabelRules(), name)) for name in KEEPING}
