"""The snapshots of a run: made of its artifacts, or one that is there, without them."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from featurestore.errors import ArtifactError, ConfigError, JoinError
from featurestore.io.progress import Rows
from featurestore.snapshots import collection
from featurestore.snapshots.build import RULES, materialise, refused_joins
from featurestore.snapshots.snapshot import Snapshot
from featurestore.spec.encoders import encoder_of
from featurestore.spec.rules import values_of
from featurestore.store import FeatureStore
from train.config.encoders import encoders
from train.config.schema import Config
from train.tracking.runs import RunRecord, load_run

RUN = r"(?:runs:/)?([0-9a-f]{32})"
FREE = ("seed",)  # of folds that are there it decides nothing, and of a fit much


def make_snapshots(
    config: Config, stores: Sequence[FeatureStore], rows: Rows, folds: Sequence[int] = ()
) -> list[Snapshot]:
    """Return the snapshot of each store, or the one that ``data.snapshot`` names.

    Parameters
    ----------
    stores
        One for each variant of the rules.
    rows, folds
        As of `featurestore.snapshots.build.materialise`.

    Raises
    ------
    FeatureStoreError
        What is named is not there, is damaged, or has other rules than are configured.
    """
    if not config.data.snapshot:
        return [materialise(store, rows, folds) for store in stores]
    if len(stores) > 1:
        raise ConfigError(
            "A snapshot has one variant of the rules",
            found=f"data.snapshot={config.data.snapshot}, and a sweep over rules",
            fix="sweep what is none of the rules, or leave data.snapshot out",
        )
    snapshot = collection.opened(_digest(config.data.snapshot))
    check_rules(snapshot, stores[0], config.data.snapshot)
    check_encoder(snapshot, config)
    check_joins(snapshot, config)
    return [snapshot]


def _digest(name: str) -> str:
    """Return the name of a snapshot: as it is, or that of the one that a run has used."""
    run = re.fullmatch(RUN, name)
    if run is None:
        return name
    digests = digests_of(load_run(run[1]))
    if len(digests) != 1:
        raise ArtifactError(
            f"Run {run[1]} has used {len(digests)} snapshots",
            found=", ".join(digests) or "none that it has recorded",
            fix="name one of them by the beginning of its digest",
        )
    return digests[0]


def digests_of(record: RunRecord) -> list[str]:
    """Return the digests of the snapshots that a run has used, each once."""
    return sorted({digest for key, digest in record.data.items() if key.startswith("snapshot")})


def still_here(record: RunRecord) -> str | None:
    """Return the name of the one snapshot that a run has used, if this machine has it still."""
    if len(digests := digests_of(record)) != 1:
        return None
    return next((name for name in collection.names() if digests[0].startswith(name)), None)


def check_rules(snapshot: Snapshot, store: FeatureStore, name: str) -> None:
    """Refuse a snapshot whose rules are not those that are configured.

    Raises
    ------
    ConfigError
        They differ.
    """
    rules = snapshot.manifest["rules"]
    configured = json.loads(json.dumps(values_of(store.spec, RULES), default=dict))
    unlike = [key for key in configured if configured[key] != rules.get(key) and key not in FREE]
    if unlike:
        differing = (f"{k} {_text(rules.get(k))}, not {_text(configured[k])}" for k in unlike)
        raise ConfigError(
            f"The snapshot {name} was made by other rules than are configured",
            found="; ".join(differing),
            fix="give the arguments of the command that made it, or leave data.snapshot out",
        )


def check_encoder(snapshot: Snapshot, config: Config) -> None:
    """Refuse a snapshot of other encoders than are configured, or of another one of them.

    Its inputs name the encoders whose keys alone it has: the one that they leave over is its own.

    Raises
    ------
    ConfigError
        It was made for another one.
    """
    several, picked = config.data.embeddings, config.data.encoder
    if not isinstance(several, dict):
        return
    others = {name for uri in snapshot.manifest["inputs"] if (name := encoder_of(uri))}
    if others != several.keys() - {picked}:
        encoder = ", ".join(sorted(several.keys() - others))
        raise ConfigError(
            f"The snapshot {config.data.snapshot} was not made for encoder {picked}",
            found=f"it is that of {encoder}, beside {', '.join(sorted(others))}"
            if others
            else "a snapshot of embeddings that were not compared with others",
            fix="set data.encoder to its own, or name another snapshot; `featurestore snapshots` "
            "lists them",
        )


def check_joins(snapshot: Snapshot, config: Config) -> None:
    """Refuse a snapshot of tiles that hardly had embeddings, as its artifacts would be.

    Raises
    ------
    JoinError
        More of a cohort, or of a slide, than ``allow_missing`` had none.
    """
    for name in refused_joins(snapshot.manifest, config.allow_missing):
        counts = snapshot.manifest["joins"][name]
        worst = counts["worst"]
        raise JoinError(
            f"The snapshot {config.data.snapshot} was made of {name.replace('_', ' ')} that hardly "
            f"had embeddings: more than allow_missing={config.allow_missing:g} had none",
            found=f"{counts['missing']:,} of {counts['tiles']:,} had none; of slide "
            f"{worst['slide_id']} {worst['missing']:,} of {worst['tiles']:,}",
            fix="give the allow_missing of the command that made it, or train on the artifacts, "
            "which tells the cause",
        )


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def inputs_of(
    config: Config,
    store: FeatureStore,
    snapshots: Sequence[Snapshot],
    unread: Collection[str] = (),
) -> dict[str, tuple[str, str]]:
    """Return URI and digest of each artifact that went into a run.

    Of a snapshot without its sources they are those that it was made of.

    Parameters
    ----------
    unread
        As of `featurestore.io.sources.Sources.digests`.
    """
    if not config.data.snapshot:
        sources = store.sources.digests(unread)
        # Where several encoders are compared, none of them is the embeddings.
        compared = {"embeddings", "test_embeddings"} if encoders(config) else set()
        return {
            f"{name}/{store.spec.encoder}" if name in compared else name: sources[name]
            for name in sources
        }
    return {name: (uri, digest) for name, (uri, digest) in snapshots[0].manifest["sources"].items()}
