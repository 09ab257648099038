"""The heads that a configuration asks for: one for each setting and fold."""

import itertools
import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from featurestore.errors import EmptyViewError
from train.config.schema import Config
from train.config.sweep import Setting, configured
from train.engine.heads import HeadSpecs
from train.engine.shard import DROPPED
from train.fitting.few_shot import Variants
from train.fitting.tile_table import VALIDATION, TileTable, slide_rank
from train.predictions.table import encode_slides

NONE: Variants = MappingProxyType({})


@dataclass(frozen=True)
class HeadGrid:
    """The heads that a configuration asks for: of `fold=4` a grid of one.

    Parameters
    ----------
    settings, folds
        Head ``s * len(folds) + f`` has setting s and validates on the f-th fold.
    heads
        The same as columns.
    counts
        Tiles and slides that each head trains on, shape (H, 2).
    class_counts
        Tiles of each class that each head trains on, shape (H, K).
    final
        One more head of each setting, on all folds; None where none is asked for.
    is_single
        Whether it is one head that knows the two sides of its split alone, see
        `TileTable.of_split`; its epochs are recorded one by one.
    """

    settings: list[Setting]
    folds: list[int]
    heads: HeadSpecs
    counts: npt.NDArray[np.int64]
    class_counts: npt.NDArray[np.int64]
    final: HeadSpecs | None = None
    is_single: bool = False

    @property
    def draws(self) -> int:
        """How often slides are drawn: so many settings, one after another, differ by that alone."""
        return len({setting.draw for setting in self.settings})

    @property
    def names(self) -> list[str]:
        """What tells each head from the others."""
        if self.is_single:
            return [setting.name for setting in self.settings]
        return [f"{setting.name}, fold {fold}" for setting in self.settings for fold in self.folds]

    def of_setting(self, setting: int) -> torch.Tensor:
        """Return the heads of a setting."""
        return torch.arange(setting * len(self.folds), (setting + 1) * len(self.folds))


def single_head(tiles: TileTable, config: Config) -> HeadGrid:
    """Return the grid of one head on the two sides of a split."""
    grid = head_grid(tiles, [Setting({}, 0, **configured(config))], [VALIDATION], config.seed)
    return replace(grid, is_single=True)


def head_grid(
    tiles: TileTable, settings: list[Setting], folds: list[int], seed: int,
    variants: Variants = NONE,
) -> HeadGrid:  # fmt: skip
    """Return the heads of some settings and folds.

    A setting's fraction is that of the slides outside the validation fold, at least one of them:
    the first in an order that only the seed decides, so that a larger share holds a smaller one.

    Parameters
    ----------
    variants
        Of heads that draw slides, see `train.fitting.few_shot.with_draws`.

    Raises
    ------
    EmptyViewError
        A head has no tile to train on, or none to validate on.
    """
    rank = slide_rank(tiles.keys, seed)
    slide, _ = encode_slides(tiles.keys)
    classes = int(tiles.target.max(initial=DROPPED)) + 1
    rows, counts, class_counts = [], [], []
    for (number, setting), fold in itertools.product(enumerate(settings), folds):
        variant = variants.get((number, fold), setting.variant)
        tile_fold, target = tiles.fold[:, variant], tiles.target[:, variant]
        other_folds = (tile_fold != DROPPED) & (tile_fold != fold)
        ranks = np.unique(rank[other_folds])
        if not len(ranks):
            raise EmptyViewError(
                f"Fold {fold} leaves no tile to train on",
                found=f"every kept tile is in it ({setting.name})",
                fix="choose other folds, or loosen the thresholds",
            )
        share = math.ceil(setting.train_fraction * len(ranks))
        max_rank = 1.0 if setting.train_fraction == 1 else ranks[share - 1]
        mask = other_folds & (rank <= max_rank)
        counts.append((mask.sum(), len(np.unique(slide[mask]))))
        class_counts.append(np.bincount(target[mask], minlength=classes))
        validation = (tile_fold != DROPPED) & (tile_fold == fold)
        check_validation(target[validation], class_counts[-1], setting.name)
        learning = (setting.learning_rate, setting.weight_decay, setting.label_smoothing)
        rows.append((variant, fold, float(max_rank), *learning))
    columns = list(zip(*rows, strict=True))
    integers = [torch.tensor(column, dtype=torch.int64) for column in columns[:2]]
    numbers = [torch.tensor(column, dtype=torch.float32) for column in columns[2:]]
    heads = HeadSpecs(*integers, *numbers)
    return HeadGrid(settings, folds, heads, np.array(counts), np.array(class_counts))


def check_validation(
    target: npt.NDArray[np.int64], class_counts: npt.NDArray[np.int64], setting: str
) -> None:
    """Refuse validation tiles that weigh nothing: their loss would stop training at once.

    Parameters
    ----------
    target
        Classes of the tiles that a head validates on; none for a head that trains on all.
    class_counts
        Tiles of each class that it trains on, shape (K,).

    Raises
    ------
    EmptyViewError
        Not one of them is of a class that it trains on.
    """
    if len(target) and not class_counts[target].any():
        raise EmptyViewError(
            "No validation tile is of a class that is trained on",
            found=f"{len(target):,} validation tiles, all of other classes ({setting})",
            fix="choose another fold, or a larger train_fraction",
        )
