"""Products of a tall matrix of embeddings with few columns, by what is quickest on the processor.

Which that is goes by the width of its vectors, see docs/decisions/049-kernels.md and
`benchmarks.products`, which measures all kernels on the processor at hand. It is no measurement of
each process: one would then have other last digits than the next.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
TILE = 8  # columns that OpenBLAS computes as fast as one
SOME = 2**18  # numbers: below, no kernel is so much quicker that it is worth another last digit
LARGE = 2**20  # numbers: below, NumPy's threads are started for less than they do
FEW = 16  # columns that oneDNN multiplies faster than OpenBLAS, if embeddings are its rows
WIDE = "AVX512" in torch.backends.cpu.get_cpu_capability()


def has_onednn() -> bool:
    """Return whether this build of torch has oneDNN's product for CPUs, called as below.

    The function is torch's own and private: another version may call it otherwise.
    """
    x, weight = torch.ones(1, 2), torch.ones(3, 2)
    try:
        return torch.equal(_onednn_matmul(x, weight), x @ weight.T)
    except (AttributeError, RuntimeError):  # there is none, or it takes other arguments
        return False


def _onednn_matmul(left: Tensor, right: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


def _onednn_rows_first(left: Tensor, right: Tensor) -> Tensor:
    return _onednn_matmul(right, left).T.contiguous()  # what runs over rows is quick


def _numpy_matmul(left: Tensor, right: Tensor) -> Tensor:
    columns = left.numpy()
    lacking = -len(columns) % TILE
    if lacking:
        columns = np.concatenate([columns, np.zeros((lacking, columns.shape[1]), np.float32)])
    return torch.from_numpy(columns @ right.numpy().T)[: len(left)]


def _torch_matmul(left: Tensor, right: Tensor) -> Tensor:
    return left @ right.T


ONEDNN: dict[str, Kernel] = {"onednn": _onednn_matmul, "onednn, rows first": _onednn_rows_first}
KERNELS: dict[str, Kernel] = {
    **(ONEDNN if has_onednn() else {}),
    "numpy": _numpy_matmul,
    "torch": _torch_matmul,
}
"""Products of float32 on a CPU."""


def kernel_of(columns: int, right: Tensor) -> str:
    """Return the name of the kernel that multiplies some columns with embeddings.

    Parameters
    ----------
    columns
        How many.
    right
        The embeddings; in a gradient a transposed view of them.
    """
    has_onednn, forward, few = "onednn" in KERNELS, right.is_contiguous(), columns <= FEW
    if WIDE or right.numel() < SOME:
        return "onednn" if has_onednn else "torch"
    if has_onednn and few and forward:
        return "onednn, rows first"
    # Several threads of NumPy's and several of torch's would wait for each other by spinning.
    if right.numel() >= LARGE and torch.get_num_threads() == 1:
        return "numpy"
    return "onednn" if has_onednn and few else "torch"


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ right.T``.

    Parameters
    ----------
    left
        Shape (few, dim): weights of heads; or their residuals, and then dim is of rows.
    right
        Shape (many, dim); may be a transposed view.
    """
    suits = left.device.type == "cpu" and left.dtype == torch.float32
    if suits and len(left) and left.shape[1] > 1:  # oneDNN refuses some views of one column
        return KERNELS[kernel_of(len(left), right)](left, right)
    return left @ right.T


def symmetric_product(x: Tensor) -> Tensor:
    """Return ``x.T @ x``: on a CPU NumPy computes half of it, and mirrors the rest.

    Parameters
    ----------
    x
        Shape (rows, dim), float32.
    """
    if x.device.type != "cpu":
        return x.T @ x
    array = x.numpy()
    return torch.from_numpy(array.T @ array)
