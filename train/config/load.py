r"""The configuration: its schema, its defaults, and how the pieces in configs/ compose.

    accelerate launch train/probe.py data=data.yaml classes=tissue thresholds.Fat=0.5 fold=4

Each YAML in configs/ overlays the whole configuration. `data=NAME`, `classes=NAME` and
`experiment=NAME` pick one (or name a file); its section `use` may pick others. In order, the later
wins: train/config/schema.py, configs/probe.yaml, data, classes, experiment, the command line.

The type of a key says how its value is read: what is text is taken as it is written, `007` and `on`
too. OmegaConf composes what was read. In these files, and nowhere else, `${data.name}` stands for
the value of another key, `\${` for the characters, and `???` for a value that must be set: it is
none. What a run has recorded is never resolved again. `data.root` in one of them is the folder,
from the file's own, at which its relative paths start; all others start at the working folder.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from yaml import MappingNode

from featurestore.errors import ConfigError
from featurestore.spec import bounds, places
from featurestore.spec.arguments import check_form, given, twice
from featurestore.spec.keys import documented, unset
from featurestore.spec.places import file_question
from featurestore.spec.scalars import TEXT
from featurestore.spec.trees import Tree, changed, leaves, one_values
from featurestore.spec.typed import Reader, nearest
from train.config import encoders
from train.config.compose import Templates
from train.config.rules import check, check_sweep
from train.config.schema import MISSING, Config

T = TypeVar("T")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LATE = 3.0  # seconds
GROUPS = ("data", "classes", "experiment")  # in the order in which they are merged
EXAMPLE = "fold=4 learning_rate=3e-4"


def load(argv: list[str]) -> Config:
    """Return the configuration that configs/ and ``key=value`` arguments make, resolved.

    Raises
    ------
    ConfigError
        A key, value, file or argument that is not understood, with the nearest one that is; or a
        mandatory key (``???``) that is missing, with an example.
    """
    templates = Templates()
    tree = templates.composed(_layers(argv, templates), [*one_values(Config)])
    runs = tree["data"]["runs"]
    # Where a run is not set, its artifacts were all given other URIs.
    tree["data"]["runs"] = {name: run for name, run in runs.items() if run != MISSING}
    missing = [
        ".".join(path)
        for path, value in leaves(tree)
        if value == MISSING or (isinstance(value, list) and MISSING in value)
    ]
    if missing:
        raise unset(missing, " ".join(f"{key}={MISSING}" for key in missing))
    config = _checked(changed(Config(), tree))
    check_sweep(config)
    config.presets = presets([argument for argument in argv if argument.startswith("data=")])
    return config


def presets(argv: list[str]) -> dict[str, Any]:
    """Return the values of keys that arguments give, and configs/ below them: no sections."""
    _, *layers = _layers(argv, Templates())  # the schema's defaults come first
    return {
        key: value
        for layer in layers
        for key, value in layer.items()
        if not isinstance(value, dict)
    }


def recorded(content: str, argv: list[str]) -> Config:
    """Return the configuration that a run has recorded, with ``key=value`` arguments on top.

    Parameters
    ----------
    content
        YAML, as `train.config.text.text` writes it: nothing in it is resolved.

    Raises
    ------
    ConfigError
        A key that is not known, here or in the arguments.
    """
    reader = _reader(Config, "the recorded configuration")
    config = changed(Config(), reader.section(Config, reader.root(content)))
    return _checked(changed(config, given(Config, argv, "fold=4 data.tiles=tiles.parquet")))


def excerpt(content: str, names: Sequence[str]) -> dict[str, Any]:
    """Return some keys of a configuration that a run has recorded, as far as they are there.

    Parameters
    ----------
    content
        YAML, as `train.config.text.text` writes it.
    names
        Keys of its root.
    """
    reader = _reader(Config, "the recorded configuration")
    root = reader.entries(reader.root(content))
    pairs = [(yaml.ScalarNode(TEXT, name), root[name]) for name in names if name in root]
    return reader.section(Config, MappingNode("", pairs))


def small(schema: type[T], argv: list[str], example: str) -> T:
    """Return the configuration of a small script: a dataclass, changed by ``key=value`` arguments.

    Parameters
    ----------
    schema
        Its keys and defaults, documented as in train/config/schema.py.
    example
        Arguments to show to who gave none that are understood.

    Raises
    ------
    ConfigError
        As `load`.
    """
    settings = changed(schema(), given(schema, argv, example))
    for key in _unset(settings):
        raise ConfigError(f"{key} is not set", found=" ".join(argv), fix=f"write {example}")
    _check_numbers(settings)
    return settings


def filed(schema: type[T], file: Path) -> T:
    """Return a dataclass, documented as in train/config/schema.py, with the values of a YAML file.

    Raises
    ------
    ConfigError
        As `load`.
    """
    reader = _reader(schema, str(file))
    settings = changed(schema(), reader.section(schema, reader.root(_read(file))))
    _check_numbers(settings)
    return settings


def _reader(schema: type, source: str) -> Reader:
    return Reader(source, [name for name, *_ in documented(schema)])


def _layers(argv: list[str], templates: Templates) -> list[Tree]:
    """Return what defaults, files of configs/ and arguments set, in the order of merging."""
    picked: dict[str, str] = {}
    rest = []
    for argument in argv:
        check_form(argument, argv, EXAMPLE)
        group, _, name = argument.partition("=")
        if group not in GROUPS:
            rest.append(argument)
        elif group in picked:
            raise twice(group, argv)
        else:
            picked[group] = Reader().argument(str, name, group)
    changes = given(Config, rest, EXAMPLE, templates.later)
    default, base = _layer(CONFIGS / "probe.yaml", templates)
    overlays, names = {}, picked
    for group in ("experiment", "data", "classes"):  # in the order in which they may pick others
        if group in (current := {**default, **names}):
            use, overlays[group] = _layer(_file(group, current[group]), templates)
            names = {**use, **names}
    picks = [overlays[group] for group in GROUPS if group in overlays]
    return [dataclasses.asdict(Config()), base, *picks, changes]


def _layer(file: Path, templates: Templates) -> tuple[dict[str, str], Tree]:
    """Return what a file of configs/ picks of others, and what it sets."""
    reader = dataclasses.replace(_reader(Config, str(file)), later=templates.later)
    reader = dataclasses.replace(reader, keys=[*reader.keys, places.KEY])
    root, place = places.divided(reader, reader.root(_read(file)))
    use = reader.entries(root).get("use")
    picked = Reader(str(file)).value(dict[str, str], use, "use") if use else {}
    for group in picked:
        if group not in GROUPS:
            raise ConfigError(
                f"There is no {group!r} to use",
                found=f"use.{group} in {file}{nearest(group, GROUPS)}",
                fix=f"use some of {', '.join(GROUPS)}",
            )
    keys = [pair for pair in root.value if pair[1] is not use]
    tree = reader.section(Config, MappingNode(root.tag, keys))
    return picked, tree | {"data": places.placed(tree.get("data", {}), file, place)}


def _checked(config: Config) -> Config:
    for key in _unset(config):
        raise unset([key], f"{key}={MISSING}")
    _check_numbers(config)
    check(config)
    encoders.check(config)
    return config


def _unset(settings: Any) -> Iterator[str]:
    for key, default, _ in documented(type(settings)):
        if default == MISSING and attrgetter(key)(settings) == MISSING:
            yield key


def _check_numbers(settings: Any) -> None:
    """Refuse a dataclass with a number that is out of its bounds.

    What is swept has the bounds of what it is swept for.
    """
    limits = bounds.of(type(settings))
    for path, value in leaves(dataclasses.asdict(settings)):
        swept = path[1:] if path[0] == "sweep" else path
        for key in (".".join(path), ".".join(swept), swept[0]):  # thresholds are those of a class
            if key in limits:
                bounds.check([(".".join(path), value)], limits[key])
                break


def _file(group: str, name: str) -> Path:
    if name.endswith(places.YAML):
        return Path(name)
    file = CONFIGS / group / f"{name}.yaml"
    if not file.exists():
        names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        question = file_question(name, group) or nearest(name, names)
        raise ConfigError(
            f"There is no {group}={name}",
            found=f"{group}: {', '.join(names)}{question}",
            fix=f"pick one of them, or name a file: {group}=path/to/mine.yaml",
        )
    return file


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read",
            found=error.strerror or type(error).__name__,
            fix="correct the file or its name",
        ) from error
