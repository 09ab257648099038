"""The gradient of all heads against autograd, and steps against torch's own optimizers."""

import pytest
import torch
from engine_problems import CLASSES, DIM, MANY, make_problem, make_weights, one_head, smoothed_loss
from torch import nn

from train.engine.heads import train_mask
from train.engine.optimizers import OPTIMIZERS
from train.engine.shard import Shard
from train.engine.stepper import Stepper, gradient
from train.engine.weights import LinearHeads, initial_weights


def layer_of(weights: LinearHeads, head: int) -> nn.Linear:
    """Return a head as torch's own layer."""
    layer = nn.Linear(DIM, CLASSES)
    layer.weight.data, layer.bias.data = weights.weight[head].clone(), weights.bias[head].clone()
    return layer


def test_gradient_is_autograds(shard: Shard):
    problem, weights = make_problem(shard, MANY), make_weights(len(MANY))
    grad, sums = gradient(shard, weights, problem)
    for index in range(len(MANY)):
        head, layer = MANY.select(one_head(index)), layer_of(weights, index)
        rows, target = train_mask(shard, head)[0], shard.target[int(head.variant)]
        criterion = smoothed_loss(problem.losses.class_weights[index], float(head.label_smoothing))
        loss = criterion(layer(shard.x[rows]), target[rows])
        loss.backward()
        weight_sum = sums[1, index]
        assert float(sums[0, index] / weight_sum) == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(
            grad.weight[index] / weight_sum.float(), layer.weight.grad, rtol=1e-4, atol=1e-7
        )
        torch.testing.assert_close(
            grad.bias[index] / weight_sum.float(), layer.bias.grad, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_heads_that_stay_keep_their_part_of_the_optimizer(shard: Shard, optimizer: str):
    """Each head takes torch's own steps by its own rate and decay, also after others have left."""
    problem, weights = make_problem(shard, MANY), make_weights(len(MANY))
    stepper, layers, optimizers = Stepper(optimizer, MANY, weights.clone()), [], []
    for index in range(len(MANY)):
        layers.append(layer_of(weights, index))
        rate, decay = float(MANY.learning_rate[index]), float(MANY.weight_decay[index])
        optimizers.append(OPTIMIZERS[optimizer](layers[-1].parameters(), rate, decay))
    active = torch.arange(len(MANY))
    for leaving in ([], [0, 3], [], [4, 5], []):
        stepper.keep(torch.tensor([place for place, head in enumerate(active.tolist())
                                   if head not in leaving]))  # fmt: skip
        active = torch.tensor([head for head in active.tolist() if head not in leaving])
        stepper.step([shard.cut(slice(250)), shard.cut(slice(250, 600))], problem.select(active))
        for place, head in enumerate(active.tolist()):
            spec = MANY.select(one_head(head))
            rows, target = train_mask(shard, spec)[0], shard.target[int(spec.variant)]
            criterion = smoothed_loss(
                problem.losses.class_weights[head], float(spec.label_smoothing)
            )
            optimizers[head].zero_grad()
            criterion(layers[head](shard.x[rows]), target[rows]).backward()
            optimizers[head].step()
            torch.testing.assert_close(
                stepper.weights.weight[place], layers[head].weight.detach(), rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(
                stepper.weights.bias[place], layers[head].bias.detach(), rtol=1e-4, atol=1e-5
            )


def test_initial_weights_are_those_of_torchs_layer():
    torch.manual_seed(3)
    layer = torch.nn.Linear(40, 7)
    initial = initial_weights(2, 40, 7, seed=3)
    for head in range(2):
        assert torch.equal(initial.weight[head], layer.weight)
        assert torch.equal(initial.bias[head], layer.bias)
