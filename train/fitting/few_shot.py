"""Few-shot training sets: the tiles of k slides of each class, drawn again and again.

Each is a variant of its own (see `train.fitting.tile_table.TileTable`): the validation fold as it
is, the drawn tiles in their folds, all others dropped. So every way to train, and every figure,
takes them as it takes variants of the rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from train.config.sweep import Setting
from train.engine.shard import DROPPED
from train.fitting.tile_table import Rows, TileTable
from train.predictions.table import encode_slides

Variants = Mapping[tuple[int, int], int]
"""The variant of a head that has one of its own, by the numbers of its setting and its fold."""


def with_draws(
    table: TileTable, settings: Sequence[Setting], folds: Sequence[int], seed: int
) -> tuple[TileTable, Variants]:
    """Return the tiles with the variants of settings that draw slides, and which these are.

    Parameters
    ----------
    settings, folds
        Of the grid.
    seed
        With the number of a draw it decides the order of slides: fewer slides are among more.
    """
    slide, names = encode_slides(table.keys)
    targets, of_folds = [table.target], [table.fold]
    variants: dict[tuple[int, int], int] = {}
    for number, setting in enumerate(settings):
        if not setting.shots:
            continue
        order = np.random.default_rng([seed, setting.draw]).permutation(len(names))
        target, tile_fold = table.target[:, setting.variant], table.fold[:, setting.variant]
        for fold in folds:
            others = (tile_fold != DROPPED) & (tile_fold != fold)
            chosen = drawn(target, order[slide], others, setting.shots)
            targets.append(target[:, None])
            of_folds.append(np.where(chosen | (tile_fold == fold), tile_fold, DROPPED)[:, None])
            variants[number, fold] = table.fold.shape[1] + len(variants)
    if not variants:
        return table, {}
    target, tile_fold = (np.concatenate(each, axis=1) for each in (targets, of_folds))
    return replace(table, target=target, fold=tile_fold), variants


def drawn(
    target: Rows, rank: Rows, candidates: npt.NDArray[np.bool_], shots: int
) -> npt.NDArray[np.bool_]:
    """Return the tiles of each class on the first slides that have the class.

    Parameters
    ----------
    target
        Class of each tile, shape (tiles,).
    rank
        Place of its slide in a random order, from 0.
    candidates
        Which tiles may be drawn.
    shots
        Slides of each class; of a class on fewer slides, all of them.

    Examples
    --------
    >>> target, rank = np.array([0, 0, 1, 1, 1]), np.array([1, 0, 1, 2, 2])
    >>> drawn(target, rank, np.array([True] * 5), 1).tolist()
    [False, True, True, False, False]
    """
    shape = int(target.max(initial=-1)) + 1, int(rank.max(initial=-1)) + 1
    present = np.zeros(shape, dtype=bool)
    present[target[candidates], rank[candidates]] = True
    first = present & (present.cumsum(axis=1) <= shots)
    return candidates & first[target, rank]
