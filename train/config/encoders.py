"""Several encoders: one run, below it a run of each, configured like any other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from featurestore.errors import ConfigError, FeatureStoreError
from featurestore.spec.encoders import check_encoders, encoder_of, kind_of
from train.config.schema import Config
from train.config.sweep import rule_variants


def encoders(config: Config) -> tuple[str, ...]:
    """Return the encoders that a configuration trains on one after another.

    None where its embeddings are one artifact, where one is picked, and where nothing is trained.
    """
    embeddings = config.data.embeddings
    several = config.mode == "fit" and isinstance(embeddings, dict) and config.data.encoder is None
    return tuple(embeddings) if several and isinstance(embeddings, dict) else ()


def of_encoder(config: Config, name: str) -> Config:
    """Return the configuration of the run of one encoder, below that of all of them.

    Its tiles are those that all encoders have. It registers a model of its own, and writes to a
    folder of its own.
    """
    return replace(
        config,
        data=replace(config.data, encoder=name),
        tracking=replace(config.tracking, model=f"{config.tracking.model}-{name}", run_name=name),
        output=config.output and str(Path(config.output) / name),
    )


def check(config: Config) -> None:
    """Refuse encoders that are not told apart, and what cannot be done with several of them.

    Raises
    ------
    ConfigError
        With the key.
    """
    data = config.data
    check_encoders(data.embeddings, data.test_embeddings, data.encoder)
    if not isinstance(data.embeddings, dict):
        return
    if data.snapshot and data.encoder is None:
        raise ConfigError(
            "A snapshot has the embeddings of one encoder",
            found=f"data.snapshot={data.snapshot} and data.embeddings of "
            f"{', '.join(data.embeddings)}",
            fix="set data.encoder to the one that it was made for, or leave data.snapshot out",
        )
    if encoders(config) and rule_variants(config) != [{}]:
        raise ConfigError(
            "Encoders are compared on the same tiles, labels and folds, which rules decide",
            found="a sweep over rules: "
            + ", ".join(dict.fromkeys(key for rules in rule_variants(config) for key in rules)),
            fix="sweep what is none of the rules, or set data.encoder to one of "
            + ", ".join(data.embeddings),
        )


@contextmanager
def named(encoder: str | None) -> Iterator[None]:
    """Name the encoder in whatever is refused of it; of a single one nothing is said.

    The keys of all encoders are read with each: what is wrong with the embeddings of another bears
    its name, and what is wrong with tiles or slides that of none.
    """
    try:
        yield
    except FeatureStoreError as error:
        about = error.artifact or "embeddings"
        name = encoder_of(about) or encoder
        named_already = error.wrong.startswith("Encoder ")
        if not encoder or named_already or not kind_of(about).endswith("embeddings"):
            raise
        begun = type(error)(f"Encoder {name}: {error.wrong}", found=error.found, fix=error.fix)
        begun.artifact = error.artifact
        raise begun from error
