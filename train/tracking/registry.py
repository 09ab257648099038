"""The model registry: versions, the alias that a model is served by, and who may move it now."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from featurestore.errors import FeatureStoreError
from featurestore.io import preflight, tracking_server
from featurestore.redaction import redacted
from featurestore.spec.typed import nearest

LONGEST = 5000  # characters of a tag that every backend store takes
SHOWN = 20  # names or versions in a message


class RegistryError(FeatureStoreError):
    """The registry has no such thing, or refuses."""


@dataclass(frozen=True)
class Version:
    """A registered version.

    Parameters
    ----------
    model, number
        Its name in the registry and its number.
    run
        The run that made it.
    tags
        As they are now.
    """

    model: str
    number: str
    run: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"version {self.number}"


def client() -> Any:
    """Return MLflow's client."""
    import mlflow

    return mlflow.MlflowClient()


@contextmanager
def translated(wrong: str) -> Iterator[None]:
    """Turn MLflow's exceptions into an error that says what could not be done."""
    import mlflow

    uri = mlflow.get_registry_uri()
    fix = f"check names and the tracking URI ({preflight.absolute(uri)})"
    with tracking_server.translated(uri, wrong, RegistryError, fix):
        yield


def check_store(model: str) -> None:
    """Refuse to ask for a model where no store is: MLflow would make one.

    Raises
    ------
    RegistryError
        There is none.
    """
    import mlflow

    wrong = f"The registry has no model {model}"
    preflight.check_there([mlflow.get_registry_uri()], wrong, RegistryError)


def version(model: str, number: int | Literal["latest"]) -> Version:
    """Return a version of a model.

    Raises
    ------
    RegistryError
        There is none, with what is there.
    """
    wrong = f"The registry has no version {number} of {model}"
    with translated(wrong), _listing(model, wrong):
        if number == "latest":
            latest = client().get_registered_model(model).latest_versions
            number = max((int(entry.version) for entry in latest), default=0)
        return _version(client().get_model_version(model, str(number)))


def alias_version(model: str, alias: str) -> Version | None:
    """Return the version that an alias points at, or None.

    Raises
    ------
    RegistryError
        There is no such model, or it cannot be an alias.
    """
    wrong = f"The registry has no alias {alias!r} of {model}"
    with translated(wrong), _listing(model, wrong):
        if alias not in client().get_registered_model(model).aliases:
            return None
        return _version(client().get_model_version_by_alias(model, alias))


@contextmanager
def _listing(model: str, wrong: str) -> Iterator[None]:
    """Let the refusal of a name or number that there is not say which ones there are."""
    import mlflow
    from mlflow.exceptions import MlflowException

    store = mlflow.get_registry_uri()
    preflight.check_there([store], wrong, RegistryError)
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        registered = preflight.registered(client(), model)
        raise RegistryError(
            wrong,
            found=_versions(registered) if registered else _models(model),
            fix=f"name one that is in {preflight.absolute(store)}, or version=latest",
        ) from error


def _versions(registered: Any) -> str:
    quote = '"' if "'" in registered.name else "'"
    named = client().search_model_versions(f"name = {quote}{registered.name}{quote}")
    numbers = sorted(int(entry.version) for entry in named)
    shown = [*map(str, numbers[-SHOWN:])]
    before = f"{len(numbers) - len(shown):,} older ones, " if len(numbers) > len(shown) else ""
    aliases = [f"{alias}: {number}" for alias, number in sorted(registered.aliases.items())]
    text = f"versions {before}{', '.join(shown)}" if numbers else "no version"
    return f"{text} ({', '.join(aliases)})" if aliases else text


def _models(model: str) -> str:
    entries = client().search_registered_models(max_results=SHOWN)
    names = [entry.name for entry in entries]
    return f"{', '.join(names) or 'no registered model'}{nearest(model, names)}"


def _version(entry: Any) -> Version:
    return Version(entry.name, str(entry.version), entry.run_id or "", dict(entry.tags))


# -- registered models ----------------------------------------------------------------------------


def create_model(name: str, description: str) -> bool:
    """Register a name; return whether this call did: False if it is taken or changes hands."""
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(name, description=description)
    except MlflowException as error:
        # Not to exist is what the store says of a name that goes while it looks at it.
        passing = (
            "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "TEMPORARILY_UNAVAILABLE"
        )  # fmt: skip
        if error.error_code not in passing:
            raise
        return False
    return True


def description(name: str) -> str | None:
    """Return the description of a registered model, None if there is no such model."""
    registered = preflight.registered(client(), name)
    return str(registered.description) if registered else None


def delete_model(name: str) -> None:
    """Delete a registered model, and its name with it."""
    client().delete_registered_model(name)


# -- what is written ------------------------------------------------------------------------------


def describe(model: str, number: str, text: str, tags: Mapping[str, str]) -> None:
    """Write the description of a version, which MLflow shows as Markdown, and its tags."""
    with translated(f"Version {number} of {model} could not be described"):
        client().update_model_version(model, number, description=redacted(text)[:LONGEST])
        for key, value in tags.items():
            client().set_model_version_tag(model, number, key, value)


def tag(version: Version, tags: Mapping[str, str]) -> None:
    """Tag a version with a decision; lines of an earlier gate do not outlive it."""
    fresh = {f"promotion.{key}": redacted(value)[:LONGEST] for key, value in tags.items()}
    stale = [key for key in version.tags if key.startswith("promotion.gate.") and key not in fresh]
    with translated(f"{version} of {version.model} could not be tagged"):
        for key in stale if any(key.startswith("gate.") for key in tags) else []:
            client().delete_model_version_tag(version.model, version.number, key)
        for key, value in fresh.items():
            client().set_model_version_tag(version.model, version.number, key, value)


def record_use(version: Version, test_set: str, time: datetime, outcome: str) -> None:
    """Write down that a decision on a version has looked at a test set.

    A tag of its own for each decision, so that two at once both count.

    Parameters
    ----------
    test_set
        The digest of its tiles.
    """
    key = f"{_test_set_prefix(test_set)}{time:%Y%m%dT%H%M%S.%fZ}"
    with translated(f"{version.model} could not be tagged"):
        client().set_registered_model_tag(version.model, key, f"{version}: {outcome}")


def record_move(version: Version, alias: str, time: datetime, facts: Mapping[str, str]) -> None:
    """Write down that an alias was moved to a version: a tag of the model's own for each move."""
    key = f"{_move_prefix(alias)}{time:%Y%m%dT%H%M%S.%fZ}"
    shortened = {name: redacted(fact)[: LONGEST // 8] for name, fact in facts.items()}
    value = json.dumps({"version": version.number, **shortened}, ensure_ascii=False)
    with translated(f"{version.model} could not be tagged"):
        client().set_registered_model_tag(version.model, key, value)


def moves(model: str, alias: str) -> dict[str, dict[str, str]]:
    """Return what `record_move` has written, by the time of the move, in its order."""
    prefix, wrong = _move_prefix(alias), f"The registry has no model {model}"
    with translated(wrong), _listing(model, wrong):
        tags = client().get_registered_model(model).tags
    keys = sorted(key for key in tags if key.startswith(prefix))
    return {key.removeprefix(prefix): json.loads(tags[key]) for key in keys}


def _move_prefix(alias: str) -> str:
    return f"promotion.{alias}."


def uses(model: str, test_set: str) -> int:
    """Return how many decisions on a model have looked at a test set."""
    prefix = _test_set_prefix(test_set)
    with translated(f"The registry has no model {model}"):
        tags = client().get_registered_model(model).tags
    return sum(key.startswith(prefix) for key in tags)


def _test_set_prefix(test_set: str) -> str:
    return f"test_set.{test_set[:16]}."


def write(version: Version, content: str, name: str) -> str:
    """Write a text as an artifact of a version's run; return its URI."""
    with translated(f"Run {version.run} took no artifact"):
        client().log_text(version.run, content, name)
    return f"runs:/{version.run}/{name}"
