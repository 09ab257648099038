"""What tiles weigh for heads: their class's weight, tile by tile, however many heads share it."""

from dataclasses import replace

import torch
from engine_problems import MANY, make_heads, make_problem

from train.engine.heads import HeadSpecs, TileWeights, train_mask
from train.engine.shard import DROPPED, Shard


def by_hand(shard: Shard, heads: HeadSpecs, class_weights: torch.Tensor) -> list[list[float]]:
    """Return the weights in plain Python."""
    rows = range(shard.local_rows)
    weights = class_weights.tolist()

    def weight(head: int, row: int) -> float:
        variant, held_out = int(heads.variant[head]), int(heads.fold[head])
        fold, target = int(shard.fold[variant, row]), int(shard.target[variant, row])
        rank = float(shard.slide_rank[row])
        trains = fold not in {DROPPED, held_out} and rank <= float(heads.max_slide_rank[head])
        return weights[head][target] if trains else 0.0

    return [[weight(head, row) for row in rows] for head in range(len(heads))]


def test_they_are_those_of_the_class_where_a_head_trains(shard: Shard):
    shard = shard.cut(slice(40, 160))
    class_weights = make_problem(shard, MANY).losses.class_weights
    weight, total = TileWeights.of(MANY, class_weights).on(shard)
    expected = by_hand(shard, MANY, class_weights)
    assert weight.tolist() == expected
    torch.testing.assert_close(total, torch.tensor(expected, dtype=torch.float64).sum(dim=1))


def test_heads_of_the_same_tiles_and_class_weights_are_weighed_once(shard: Shard):
    heads = make_heads(fold=[0, 1, 0, 1, 0], learning_rate=[0.1, 0.2, 0.3, 0.4, 0.5])
    class_weights = torch.ones((5, 10))
    class_weights[4, 2] = 7.0  # the first head's tiles, other weights
    weights = TileWeights.of(heads, class_weights)
    assert len(weights.heads) == 3
    assert weights.kind[0] == weights.kind[2] != weights.kind[4]
    assert weights.on(shard)[0].tolist() == by_hand(shard, heads, class_weights)


def test_masks_are_made_once_a_training_set(shard: Shard):
    heads = make_heads(fold=[2, 0, 2, DROPPED, 0], learning_rate=[0.1, 0.2, 0.3, 0.4, 0.5])
    distinct, number = heads.by_training_set
    assert len(distinct) == 3
    assert torch.equal(distinct.fold[number], heads.fold)
    fold = shard.fold[0]
    expected = (fold != DROPPED) & (fold != heads.fold[:, None])
    assert torch.equal(train_mask(shard, heads), expected)
    some = torch.tensor([1, 3])
    assert torch.equal(train_mask(shard, heads.select(some)), train_mask(shard, heads)[some])
    assert train_mask(shard, heads.select(some[:0])).shape == (0, 600)
    moved = replace(heads, fold=heads.fold.clone().fill_(1))
    assert len(moved.by_training_set[0]) == 1
