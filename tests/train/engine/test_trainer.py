"""The packed engine: against autograd, torch's own optimizer, scikit-learn, and heads alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from packs import CLASSES, MANY, SLIDES, aims, heads, plan, same, start
from ranks import ranks
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from train.engine.evaluate import evaluate
from train.engine.heads import balanced_class_weights, train_mask
from train.engine.sampler import batch_windows
from train.engine.shard import Reduce, Shard
from train.engine.standardizer import fit_standardizer
from train.engine.stepper import gradient
from train.engine.trainer import train


def test_class_weights_are_scikit_learns(pool: Shard):
    weights = balanced_class_weights(pool, MANY, CLASSES, same)
    for head in range(len(MANY)):
        own = MANY.of(torch.tensor([head]))
        target = pool.target[int(own.variant), train_mask(pool, own)[0]].numpy()
        expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=target)
        np.testing.assert_allclose(weights[head], expected, rtol=1e-6)


def test_gradient_is_autograds(pool: Shard):
    own, affine = aims(pool, MANY), start(len(MANY))
    found, sums = gradient(pool, affine, MANY, own)
    for head in range(len(MANY)):
        one = MANY.of(torch.tensor([head]))
        rows, target = train_mask(pool, one)[0], pool.target[int(one.variant)]
        layer = nn.Linear(64, CLASSES)
        layer.weight.data, layer.bias.data = affine.weight[head].clone(), affine.bias[head].clone()
        loss = nn.CrossEntropyLoss(own.weights[head], label_smoothing=float(one.smoothing))(
            layer(pool.x[rows]), target[rows]
        )
        loss.backward()
        mass = sums[1, head]
        assert float(sums[0, head] / mass) == pytest.approx(float(loss), rel=1e-5)
        torch.testing.assert_close(found.weight[head] / mass.float(), layer.weight.grad,
                                   rtol=1e-4, atol=1e-7)  # fmt: skip
        torch.testing.assert_close(found.bias[head] / mass.float(), layer.bias.grad,
                                   rtol=1e-4, atol=1e-7)  # fmt: skip


def test_a_head_is_what_torch_trains_on_its_own_tiles(pool: Shard):
    one = heads(smoothing=[0.1])
    own, first = aims(pool, one), start(1)
    fitted = train(pool, one, own, first, plan(3), same)
    layer = nn.Linear(64, CLASSES)
    layer.weight.data, layer.bias.data = first.weight[0].clone(), first.bias[0].clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=1e-3)
    loss = nn.CrossEntropyLoss(own.weights[0], label_smoothing=0.1)
    rng, states = np.random.default_rng(0), []
    for _ in range(3):
        for window in batch_windows(600, 64, rng):
            rows = torch.cat([torch.arange(*part) for part in window])
            rows = rows[train_mask(pool, one)[0, rows]]
            optimizer.zero_grad()
            loss(layer(pool.x[rows]), pool.target[0, rows]).backward()
            optimizer.step()
        states.append(layer.weight.detach().clone())
    torch.testing.assert_close(fitted.affine.weight[0], states[int(fitted.epoch[0])],
                               rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("normalize", [False, True])
def test_a_head_in_a_pack_is_the_head_alone(pool: Shard, normalize: bool):
    own, first = aims(pool, MANY), start(len(MANY))
    body = fit_standardizer(pool, MANY, same) if normalize else None
    together = train(pool, MANY, own, first, plan(6, patience=2), same, body)
    for head in range(len(MANY)):
        place = torch.tensor([head])
        alone = train(pool, MANY.of(place), own.of(place), first.of(place), plan(6, patience=2),
                      same, body.of(place) if body else None)  # fmt: skip
        difference = together.affine.weight[head] - alone.affine.weight[0]
        assert difference.norm() / alone.affine.weight[0].norm() < 1e-4
        assert int(together.epoch[head]) == int(alone.epoch[0])


def test_heads_stop_when_their_own_loss_stops_falling(pool: Shard):
    """One that learns nothing is let go after its patience, and leaves the others alone."""
    pair = heads(rate=[0.01, 0.0])
    heard: list[list[int]] = []
    fitted = train(pool, pair, aims(pool, pair), start(2), plan(8, patience=2), same,
                   told=lambda epoch, left, *_: heard.append(left.tolist()))  # fmt: skip
    assert heard[0] == [0, 1]
    assert heard[-1] == [0]
    assert fitted.loss[0] < fitted.loss[1]
    alone = train(pool, heads(), aims(pool, heads()), start(1), plan(8, patience=2), same)
    torch.testing.assert_close(fitted.affine.weight[0], alone.affine.weight[0])


def test_evaluation_is_scikit_learns(pool: Shard):
    own, affine = aims(pool, MANY), start(len(MANY))
    loss, cube = evaluate(pool, affine, MANY, own, same)
    for head in range(len(MANY) - 1):
        variant, fold = int(MANY.variant[head]), int(MANY.fold[head])
        rows = pool.fold[variant] == fold
        logits = (pool.x[rows] @ affine.weight[head].T + affine.bias[head]).double()
        target = pool.target[variant, rows].numpy()
        expected = log_loss(target, logits.softmax(dim=-1).numpy(), labels=range(CLASSES),
                            sample_weight=own.weights[head].numpy()[target])  # fmt: skip
        assert float(loss[head]) == pytest.approx(expected, rel=1e-5)
        for slide in range(SLIDES):
            of = pool.slide[rows].numpy() == slide
            expected = confusion_matrix(
                target[of], logits.argmax(dim=1).numpy()[of], labels=range(CLASSES)
            ) if of.any() else np.zeros((CLASSES, CLASSES))  # fmt: skip
            np.testing.assert_array_equal(cube[head, slide], expected)
    assert int(cube[-1].sum()) == 0  # validates on nothing


def test_standardisation_is_numpys_and_moves_into_the_weights(pool: Shard):
    body = fit_standardizer(pool, MANY, same)
    for head in range(len(MANY)):
        one = MANY.of(torch.tensor([head]))
        x = pool.x[train_mask(pool, one)[0]].double()
        np.testing.assert_allclose(body.mean[head], x.mean(dim=0), atol=1e-6)
        spread = x.std(dim=0, correction=0)
        np.testing.assert_allclose(
            body.scale[head], torch.where(spread > 1e-6, spread, 1.0), rtol=1e-4
        )
    affine = start(len(MANY))
    direct = torch.stack(
        [affine.weight[h] @ ((pool.x - body.mean[h]) / body.scale[h]).T for h in range(len(MANY))]
    )
    torch.testing.assert_close(body.moved(affine).logits(pool.x), direct, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_half_precision_costs_no_accuracy():
    """All 1,797 digits, five folds: at most 0.2 points between bf16 and float32."""
    images, digit = load_digits(return_X_y=True)
    rows = len(images)
    x = torch.from_numpy(images.astype(np.float32) / 16)
    whole = Shard(x, torch.from_numpy(digit)[None], torch.arange(rows)[None] % 5,
                 torch.arange(rows) // 130, torch.ones(rows), 14, rows)  # fmt: skip
    five = heads(fold=[0, 1, 2, 3, 4], rate=[0.02])
    accuracy = {}
    for kind in (torch.float32, torch.bfloat16):
        pool = replace(whole, x=x.to(kind))
        fitted = train(pool, five, aims(pool, five), start(5), plan(15), same)
        _, cube = evaluate(pool, fitted.affine, five, aims(pool, five), same)
        hits = cube.sum(dim=(0, 1)).diagonal().sum()
        accuracy[kind] = float(hits) / rows
    assert accuracy[torch.float32] > 0.95
    assert abs(accuracy[torch.float32] - accuracy[torch.bfloat16]) <= 0.002


@pytest.mark.parametrize(("rows", "world"), [(600, 2), (597, 4), (3, 4), (65, 2)])
def test_processes_train_what_one_trains(pool: Shard, rows: int, world: int):
    """Uneven shares, an empty one, a last batch of one tile that one process alone has."""
    whole = replace(pool.cut(slice(rows)), rows=rows)
    own = aims(whole, MANY)
    body = fit_standardizer(whole, MANY, same)

    def work(share: Shard, total: Reduce) -> tuple[Tensor, Tensor]:
        fitted = train(share, MANY, own, start(len(MANY)), plan(3), total, body)
        _, cube = evaluate(share, fitted.affine, MANY, own, total)
        return fitted.affine.weight, cube

    expected, counts = work(whole, same)
    for weight, cube in ranks(whole, world, work):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cube, counts)
