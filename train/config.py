"""The configuration: its schema, its defaults, and how the pieces in configs/ compose.

    python -m train.config data=virchow2 data.runs.tiles=... > store.yaml    # print it resolved

Each YAML in configs/ overlays the whole configuration. `data=NAME`, `classes=NAME` and
`experiment=NAME` pick one (or name a file); its section `use` may pick others. In order, the later
wins: train/schema.py, configs/probe.yaml, data, classes, experiment, the command line.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from train.checks import check, nearest
from train.schema import Config, ConfigError

T = TypeVar("T")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LATE = 3.0  # seconds
GROUPS = ("data", "classes", "experiment")  # in the order in which they are merged


def load(argv: list[str]) -> Config:
    """Return the configuration that configs/ and ``key=value`` arguments make, resolved.

    Raises
    ------
    ConfigError
        A key, value, file or argument that is not understood, with the nearest one that is; or a
        mandatory key (``???``) that is missing, with an example.
    """
    return _settled(_composed(argv))


def recorded(content: str, argv: list[str]) -> Config:
    """Return the configuration that a run has recorded, with ``key=value`` arguments on top.

    Parameters
    ----------
    content
        YAML, as `text` writes it.

    Raises
    ------
    ConfigError
        A key that is not known, here or in the arguments.
    """
    _check_form(argv, "fold=4 data.tiles=tiles.parquet")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Config), OmegaConf.create(content), OmegaConf.from_dotlist(argv)
        )
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise _explained(error, Config) from error
    assert isinstance(merged, DictConfig)
    return _settled(merged)


def small(schema: type[T], argv: list[str], example: str) -> T:
    """Return the configuration of a small script: a dataclass, changed by ``key=value`` arguments.

    Parameters
    ----------
    schema
        Its keys and defaults, documented as in train/schema.py.
    example
        Arguments to show to who gave none that are understood.

    Raises
    ------
    ConfigError
        As `load`.
    """
    _check_form(argv, example)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(argv))
        for key in sorted(OmegaConf.missing_keys(merged)):
            raise ConfigError(f"{key} is not set", found=" ".join(argv), fix=f"write {example}")
        settled = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise _explained(error, schema) from error
    assert isinstance(settled, schema)
    return settled


def filed(schema: type[T], file: Path) -> T:
    """Return a dataclass, documented as in train/schema.py, with the values of a YAML file.

    Raises
    ------
    ConfigError
        As `load`.
    """
    try:
        settled = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), _read(file)))
    except OmegaConfBaseException as error:
        raise _explained(error, schema) from error
    assert isinstance(settled, schema)
    return settled


def _check_form(argv: list[str], example: str) -> None:
    for argument in argv:
        if "=" not in argument or argument.startswith("-"):
            raise ConfigError(
                f"The argument {argument!r} is not of the form key=value",
                found=" ".join(argv),
                fix=f"write for example {example}; --help lists the keys",
            )


def _composed(argv: list[str]) -> DictConfig:
    _check_form(argv, "fold=4 learning_rate=3e-4")
    picked = dict(a.split("=", 1) for a in argv if a.split("=", 1)[0] in GROUPS)
    rest = [a for a in argv if a.split("=", 1)[0] not in GROUPS]
    base = _read(CONFIGS / "probe.yaml")
    overlays, chosen, default = {}, picked, base.pop("use", {})
    for group in ("experiment", "data", "classes"):  # in the order in which they may pick others
        name = chosen.get(group, default.get(group))
        if name is not None:
            overlays[group] = _read(_file(group, name))
            chosen = {**overlays[group].pop("use", {}), **chosen}
    layers = [base, *(overlays[group] for group in GROUPS if group in overlays)]
    try:
        config = OmegaConf.structured(Config)
        for layer in layers:
            config = OmegaConf.merge(config, layer)
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(rest))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise _explained(error, Config) from error
    assert isinstance(merged, DictConfig)
    return merged


def _settled(config: DictConfig) -> Config:
    written = OmegaConf.to_container(config.data, resolve=False)
    assert isinstance(written, dict)
    for run in [name for name, value in written["runs"].items() if value == MISSING]:
        key = f"data.runs.{run}"
        for name, uri in written.items():
            if isinstance(uri, str) and f"{{{key}}}" in uri:
                raise _unset(key, f"data={config.data.name} has data.{name!s}={uri}")
        del config.data.runs[run]  # its artifacts were all given other URIs
    for key in sorted(OmegaConf.missing_keys(config)):
        raise _unset(key, f"{key}=???")
    try:
        settled = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise _explained(error, Config) from error
    assert isinstance(settled, Config)
    check(settled)
    return settled


def run_name(config: Config) -> str:
    """Return the name of the run: the configured one, or what it does on what."""
    several = "-".join(map(str, config.fold)) if isinstance(config.fold, list) else config.fold
    fold = "" if config.fold is None else f"-fold{several}"
    named = config.tracking.run_name
    return named or f"{config.mode}-{config.data.name}-{config.head}{fold}"


def plain(config: Config) -> dict[str, Any]:
    """Return the configuration as plain containers, for YAML and for the store."""
    return dataclasses.asdict(config)


def text(config: Config) -> str:
    """Return the configuration as YAML: what a run logs and ``featurestore --config`` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def flat(config: Config) -> dict[tuple[str, ...], Any]:
    """Return the keys that are set, each with its path, for example ("thresholds", "Fat")."""

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
        rows: dict[tuple[str, ...], Any] = {}
        for key, value in node.items():
            if isinstance(value, dict):
                rows |= walk(value, (*path, key))
            elif value is not None and value != []:
                rows[*path, key] = value
        return rows

    return walk(plain(config), ())


def _unset(key: str, found: str) -> ConfigError:
    example = f"{key}=5f1c0d9a7e8b4c62" if key.startswith("data.runs.") else f"{key}=..."
    return ConfigError(
        f"{key} is not set",
        found=found,
        fix=f"set it on the command line, for example {example}",
    )


def _file(group: str, name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    file = CONFIGS / group / f"{name}.yaml"
    if not file.exists():
        there = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        raise ConfigError(
            f"There is no {group}={name}",
            found=f"{group}: {', '.join(there)}{nearest(name, there)}",
            fix=f"pick one of them, or name a file: {group}=path/to/mine.yaml",
        )
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OSError, YAMLError) as error:
        raise ConfigError(
            f"{file} cannot be read as YAML",
            found=str(error).splitlines()[0],
            fix="correct the file or its name",
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} is not a mapping", found=type(content).__name__, fix="see configs/"
        )
    return dict(content)


def _explained(error: Exception, schema: type) -> ConfigError:
    key = getattr(error, "full_key", None) or "an argument"
    first = str(error).splitlines()[0]
    if first.startswith("Key "):
        keys = [name for name, _, _ in _documented(schema)]
        return ConfigError(
            f"There is no configuration key {key!r}",
            found=f"{len(keys)} keys{nearest(key, keys)}",
            fix="correct its name; --help lists the keys",
        )
    return ConfigError(
        f"The value of {key} is not understood", found=first, fix="--help says what each key is"
    )


def _documented(schema: type, prefix: str = "", of: str = "") -> list[tuple[str, Any, str]]:
    """List the keys with their defaults and lines; one without a line has that of its section."""
    rows = []
    for entry in dataclasses.fields(schema):
        factory = entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        name, line = prefix + entry.name, entry.metadata.get("doc", of)
        if dataclasses.is_dataclass(default):
            rows += _documented(type(default), name + ".", line)
        else:
            rows.append((name, default, line))
    return rows


def usage() -> str:
    """Return the help: every key, its default and what it is."""
    lines = [
        "usage: accelerate launch train/probe.py [key=value ...]",
        "",
        "  data=NAME classes=NAME experiment=NAME  pick a file of configs/",
        *(
            f"      {group}: {', '.join(sorted(p.stem for p in (CONFIGS / group).glob('*.yaml')))}"
            for group in GROUPS
        ),
        "",
        *keys(Config),
    ]
    return "\n".join(lines)


def keys(schema: type) -> list[str]:
    """Return a line of help for every key."""
    lines = []
    for name, default, doc in _documented(schema):
        shown = "" if default is None or default in ({}, MISSING) else f" [{default}]"
        lines.append(f"  {name:<26}{doc}{shown}")
    return lines


def check_or_exit(argv: list[str]) -> None:
    """Print the help and leave, or refuse bad arguments with exit status 2, or return."""
    if {"-h", "--help"} & set(argv):
        print(usage())
        sys.exit(0)
    try:
        load(argv)
    except ConfigError as error:
        if os.environ.get("RANK", "0") != "0":
            # The first says the same and its launcher ends this one, unless arguments differ.
            time.sleep(LATE)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    check_or_exit(sys.argv[1:])
    print(text(load(sys.argv[1:])), end="")
