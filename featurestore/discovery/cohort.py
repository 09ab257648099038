"""What the chosen artifacts hold, asked of their views: classes, slides, folds, patients, joins."""

from dataclasses import dataclass, field

import ibis
import ibis.expr.types as ir

from featurestore.backend.errors import translated
from featurestore.contract.vectors import dimension, value_types
from featurestore.printing import counted
from featurestore.store import FeatureStore
from featurestore.views.classes import class_names

PATIENT = "patient_id"


@dataclass(frozen=True)
class Cohort:
    """What one artifact holds.

    Parameters
    ----------
    slides
        Number of slides.
    classes
        Of tiles, in column order.
    folds
        Of tiles that bring some.
    patients
        Number of patients where every tile tells its own, else 0.
    vectors
        Of embeddings: their length and type.
    levels, spacings
        Of slides.
    """

    slides: int
    classes: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    patients: int = 0
    vectors: str = ""
    levels: tuple[int, ...] = ()
    spacings: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """What it holds, in a line."""
        parts = [counted(self.slides, "slide")]
        parts += [counted(self.patients, "patient")] if self.patients else []
        parts += [f"{len(self.classes)} classes: {', '.join(self.classes)}"] * bool(self.classes)
        parts += [f"folds {', '.join(map(str, self.folds))}"] if self.folds else []
        parts += [self.vectors] if self.vectors else []
        parts += [f"level {', '.join(map(str, self.levels))}"] if self.levels else []
        parts += [f"{', '.join(f'{mpp:g}' for mpp in self.spacings)} µm a pixel"] * bool(
            self.spacings
        )
        return "; ".join(parts)


@dataclass(frozen=True)
class Gap:
    """Slides of one artifact that another lacks."""

    artifact: str
    other: str
    slides: list[str] = field(default_factory=list)


def cohort_of(store: FeatureStore, artifact: str) -> Cohort:
    """Return what an artifact of a store holds.

    Raises
    ------
    FeatureStoreError
        It breaks the contract.
    """
    vectors = artifact.endswith("embeddings")
    table = store.keys_of(artifact) if vectors else store.view(artifact)
    with translated():
        if artifact == "slides":
            return Cohort(
                int(table.count().to_pyarrow().as_py()),
                levels=tuple(map(int, _distinct(table, "level"))),
                spacings=tuple(map(float, _distinct(table, "mpp_x"))),
            )
        slides = int(table.slide_id.nunique().to_pyarrow().as_py())
        if vectors:
            dataset = store.sources.dataset(artifact)
            return Cohort(slides, vectors=f"{dimension(dataset)} numbers of {value_types(dataset)}")
        return Cohort(
            slides,
            tuple(class_names(table.columns)),
            tuple(map(int, _distinct(table, "fold"))),
            _patients(table),
        )


def _distinct(table: ir.Table, name: str, most: int = 20) -> list[float]:
    """Return the values of a column of numbers, if it is there; few of many."""
    if name not in table.columns or not table.schema()[name].is_numeric():
        return []
    column = table.filter(table[name].notnull()).select(name).distinct().order_by(name)
    return list(column.limit(most).to_pyarrow()[name].to_pylist())


def _patients(tiles: ir.Table) -> int:
    if PATIENT not in tiles.columns:
        return 0
    patients = tiles[PATIENT]
    row = tiles.aggregate(known=patients.nunique(), unknown=patients.isnull().sum()).to_pyarrow()
    [counts] = row.to_pylist()
    return 0 if counts["unknown"] else int(counts["known"])


def gaps(store: FeatureStore) -> list[Gap]:
    """Return the slides of each artifact that the one that it is joined with lacks."""
    spec = store.spec
    cohorts = [prefix for prefix in ("", "test_") if getattr(spec, f"{prefix}tiles")]
    embeddings = {
        prefix: f"{prefix if spec.test_embeddings else ''}embeddings" for prefix in cohorts
    }
    tiles = {prefix: _slides(store, f"{prefix}tiles") for prefix in cohorts}
    pairs = [
        (f"{prefix}tiles", embeddings[prefix], tiles[prefix], _slides(store, embeddings[prefix]))
        for prefix in cohorts
    ]
    for name in dict.fromkeys(embeddings.values()):
        asked = [tiles[prefix] for prefix in cohorts if embeddings[prefix] == name]
        both = ibis.union(*asked) if len(asked) > 1 else asked[0]
        pairs.append((name, " and ".join(f"{p}tiles" for p in cohorts if embeddings[p] == name),
                      _slides(store, name), both))  # fmt: skip
    if spec.slides:
        ids = store.view("slides").select(slide_id="id").distinct()
        pairs += [(f"{prefix}tiles", "slides", tiles[prefix], ids) for prefix in cohorts]
    with translated():
        lists = [
            Gap(name, other, left.anti_join(right, "slide_id").order_by("slide_id")
                .to_pyarrow()["slide_id"].to_pylist())
            for name, other, left, right in pairs
        ]  # fmt: skip
    return [gap for gap in lists if gap.slides]


def _slides(store: FeatureStore, artifact: str) -> ir.Table:
    return store.view(artifact).select("slide_id").distinct()
