"""From trained heads to the network that is registered."""

from torch import nn

from train.config.schema import Config
from train.engine.trainer import FitResult
from train.models.checkpoint import ModelSpec, TrainedModel
from train.models.heads import build_backbone, classifier, linear


def build_network(result: FitResult, head: int, config: Config) -> TrainedModel:
    """Return one trained head as the network that is registered.

    Its standardisation and its temperature are in its weights.
    """
    if result.weights is None:  # of a head that only autograd knows
        from train.fitting.autograd import NetworkResult

        assert isinstance(result, NetworkResult)
        return result.model
    weight, bias = result.weights.weight[head].cpu(), result.weights.bias[head].cpu()
    class_weights = result.problem.losses.class_weights[head].tolist()
    number, dim = weight.shape
    normalize = "l2" if config.normalize == "l2" else "none"
    spec = ModelSpec(
        "linear", config.hidden, normalize, dim, config.class_names, class_weights,
        result.temperature,
    )  # fmt: skip
    layer = linear(dim, number, 0)
    assert isinstance(layer, nn.Linear)
    layer.weight.data, layer.bias.data = weight, bias
    network = classifier(build_backbone(normalize, dim), layer)
    return TrainedModel(network.eval().requires_grad_(False), spec)
