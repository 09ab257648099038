"""The one loss: by hand, by autograd, by torch's own; a class that weighs nothing."""

import pytest
import torch
from engine_problems import smoothed_loss
from torch.nn import functional

from train.engine.losses import HeadLosses, cross_entropy_sum

ROWS, CLASSES = 40, 4
WEIGHTS = torch.tensor([0.4, 2.5, 0.0, 1.1])  # the third class has no training tile
LEARNED = torch.tensor([0, 1, 3])


@pytest.fixture
def tiles() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of tiles, those of the third class among them."""
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((ROWS, CLASSES), generator=rng)
    return logits, torch.randint(CLASSES, (ROWS,), generator=rng)


def by_hand(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient and the loss of the engine, for one head."""
    losses = HeadLosses(weights[None], torch.tensor([smoothing]))
    variant, weight = torch.zeros(1, dtype=torch.int64), weights[target][None]
    residual, loss = losses.residuals(logits.T[None].clone(), target[None], variant, weight)
    return residual[0].T / weight.sum(), loss[0] / weight.double().sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_what_autograd_makes_of_torchs_cross_entropy(tiles, smoothing, dtype):
    logits, target = tiles[0].to(dtype).requires_grad_(), tiles[1]
    expected = smoothed_loss(WEIGHTS, smoothing)(logits, target)
    expected.backward()
    gradient, loss = by_hand(logits.detach(), target, WEIGHTS, smoothing)
    torch.testing.assert_close(loss.to(dtype), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.to(dtype), logits.grad, rtol=1e-4, atol=1e-6)
    summed = cross_entropy_sum(logits.detach().float(), target, WEIGHTS, smoothing)
    torch.testing.assert_close((summed / WEIGHTS[target].sum()).to(dtype), expected.detach())


def test_a_class_that_weighs_nothing_is_as_good_as_not_there(tiles):
    """Its tiles change no loss; smoothing spreads nothing to it."""
    logits, target = tiles
    learned = WEIGHTS[target] > 0
    for smoothing in (0.0, 0.1):
        gradient, loss = by_hand(logits, target, WEIGHTS, smoothing)
        _, without = by_hand(logits[learned], target[learned], WEIGHTS, smoothing)
        torch.testing.assert_close(loss, without)
        assert (gradient[learned, 2] > 0).all()  # all that pulls at it pulls it down
        assert not gradient[~learned].any()


def test_even_where_it_cannot_be_predicted(tiles):
    """Closed forms give it a bias of minus infinity: the loss stays a number."""
    logits, target = tiles[0].clone(), tiles[1]
    logits[:, 2] = -torch.inf
    _, loss = by_hand(logits, target, WEIGHTS, 0.0)
    learned = WEIGHTS[target] > 0
    classes = torch.tensor([0, 1, -1, 2])
    expected = functional.cross_entropy(
        logits[learned][:, LEARNED], classes[target[learned]], WEIGHTS[LEARNED]
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    summed = cross_entropy_sum(logits, target, WEIGHTS) / WEIGHTS[target].sum()
    assert float(summed) == pytest.approx(float(expected), rel=1e-5)


def test_without_smoothing_it_is_torchs_bit_for_bit(tiles):
    logits, target = tiles
    weights = torch.tensor([0.4, 2.5, 0.7, 1.1])
    expected = functional.cross_entropy(logits, target, weights, reduction="sum")
    assert torch.equal(cross_entropy_sum(logits, target, weights), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_tile_weighs_as_its_class_does_whether_smoothed_or_not(tiles, smoothing):
    """A rare class is no magnet: of even logits, every tile costs the same but for its weight."""
    target = tiles[1]
    weights = torch.tensor([0.1, 1.0, 1.0, 300.0])
    even = torch.zeros((ROWS, CLASSES))
    _, loss = by_hand(even, target, weights, smoothing)
    assert float(loss) == pytest.approx(float(torch.tensor(4.0).log()), rel=1e-6)
    gradient, _ = by_hand(even, torch.zeros_like(target), weights, smoothing)
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 3] > 0).all()
