"""The shape of a synthetic cohort, which `featurestore.examples` writes."""

from dataclasses import dataclass, field

from featurestore.spec.bounds import COUNTS, SEEDS, within


@dataclass
class SyntheticConfig:
    """Shape of a synthetic cohort.

    Parameters
    ----------
    rows
        Number of tiles, the held-out ones included.
    dim
        Length of an embedding.
    slides, patients
        Number of slides, dealt to that many patients in turn.
    shift
        Length of the offset that all embeddings of a slide share; the noise has a standard
        deviation of 1 in each dimension.
    signal
        Length of the offset that all embeddings of a class share.
    mixed, missing, empty
        Shares of tiles with two classes, without an embedding, without any coverage.
    held_out
        Share of the patients whose slides become the test artifacts.
    seed
        Seed of all of it.
    """

    rows: int = field(default=20_000, metadata=within(COUNTS))
    dim: int = field(default=64, metadata=within(COUNTS))
    slides: int = field(default=40, metadata=within(COUNTS))
    patients: int = field(default=30, metadata=within(COUNTS))
    shift: float = field(default=4.0, metadata=within("[0, 1e6]"))
    signal: float = field(default=2.8, metadata=within("[0, 1e6]"))
    mixed: float = field(default=0.1, metadata=within("[0, 1]"))
    missing: float = field(default=0.01, metadata=within("[0, 1]"))
    empty: float = field(default=0.02, metadata=within("[0, 1]"))
    held_out: float = field(default=0.2, metadata=within("[0, 1)"))
    seed: int = field(default=0, metadata=within(SEEDS))
