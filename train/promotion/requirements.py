"""What a gate asks: the keys of configs/gate.yaml, which `train.promotion.checks` judges by."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from featurestore.errors import ConfigError
from featurestore.spec.typed import nearest
from train.config.load import CONFIGS
from train.config.schema import doc


@dataclass
class Floor:
    """The least figure of each class, and of all together."""

    figure: str = field(
        default="recall", metadata=doc("recall, f1 or another; `worse` looks at the same one")
    )
    default: float = field(default=0.5, metadata=doc("least figure of a class not named below"))
    classes: dict[str, float] = field(
        default_factory=dict, metadata=doc("class -> least figure of it")
    )
    may_be_absent: list[str] = field(
        default_factory=list, metadata=doc("classes that the test view need not have a tile of")
    )
    overall: dict[str, float] = field(
        default_factory=dict,
        metadata=doc("metric over all classes -> least value; most, where less is better"),
    )


@dataclass
class Gate:
    """Every key of configs/gate.yaml. One that is null is not asked for."""

    floor: Floor = field(default_factory=Floor, metadata=doc("floors per class"))
    worse: float | None = field(
        default=0.05, metadata=doc("most that a class may lose against the champion")
    )
    difference: float | None = field(
        default=0.02,
        metadata=doc("the 95 % interval of the macro F1's difference lies above minus this"),
    )
    calibration_error: float | None = field(
        default=0.1, metadata=doc("most expected calibration error")
    )
    shared_slides: int | None = field(
        default=0, metadata=doc("most slides both in the training data and the test view")
    )
    shared_patients: int | None = field(default=0, metadata=doc("most patients in both"))
    unknown_patients: Literal["allow", "fail"] = field(
        default="fail", metadata=doc("allow, if training or test tiles tell no patient_id")
    )
    test_set_decisions: int | None = field(
        default=20, metadata=doc("most decisions by one test set, this one included")
    )
    digests: bool = field(
        default=True, metadata=doc("data and model files are those that the run has recorded")
    )
    known: dict[str, str] = field(
        default_factory=dict,
        metadata=doc("artifact -> SHA-256 that it must have, whatever the run has recorded"),
    )


def gate_file(name: str) -> Path:
    """Return the file of a gate: one of configs/ by its name, or any.

    Raises
    ------
    ConfigError
        There is none.
    """
    for file in (CONFIGS / f"{name}.yaml", Path(name)):
        if file.is_file():
            return file
    gates = sorted(path.stem for path in CONFIGS.glob("gate*.yaml"))
    raise ConfigError(
        f"There is no gate {name!r}",
        found=f"{', '.join(gates)}{nearest(name, gates)}",
        fix="name one of them, or a file, for example gate=mine.yaml",
    )
