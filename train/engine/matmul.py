"""Products of a tall matrix of embeddings with few columns, as fast as the processor takes them.

torch sends float32 products on a CPU to MKL, which on processors of AMD uses half their width;
oneDNN, which torch brings as well, uses all of it, and is quicker still where columns are few. See
docs/decisions/008-products.md for what was measured.
"""

import torch
from torch import Tensor


def has_onednn() -> bool:
    """Return whether this build of torch has oneDNN's product for CPUs, called as below.

    The function is torch's own and private: another version may call it otherwise.
    """
    x, weight = torch.ones(1, 2), torch.ones(3, 2)
    try:
        return torch.equal(_onednn_matmul(x, weight), x @ weight.T)
    except (AttributeError, RuntimeError):  # there is none, or it takes other arguments
        return False


def _onednn_matmul(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


ONEDNN = has_onednn()


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T``.

    Parameters
    ----------
    x
        Shape (rows, dim).
    weight
        Shape (columns, dim); may be a transposed view.
    """
    suits = x.device.type == "cpu" and x.dtype == torch.float32 and len(x) and x.shape[1] > 1
    if ONEDNN and suits:  # which refuses some views of one column
        return _onednn_matmul(x, weight)
    return x @ weight.T
