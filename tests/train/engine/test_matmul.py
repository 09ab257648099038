"""Every kernel of products against NumPy in double, and which one is taken where."""

import numpy as np
import pytest
import torch
from torch import Tensor

from train.engine import matmul


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")
def test_torch_has_the_private_product():
    """`matmul` of train/engine/matmul.py relies on `torch.ops.mkldnn._linear_pointwise`."""
    assert matmul.has_onednn()


@pytest.mark.parametrize("raised", [AttributeError, RuntimeError])
def test_without_it_there_is_none(raised: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise raised("another signature")

    monkeypatch.setattr(matmul, "_onednn_matmul", refuse)
    assert not matmul.has_onednn()


@pytest.mark.parametrize("columns", [1, 7, 8, 17])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kernel", matmul.KERNELS)
def test_kernels_are_numpys_product_in_double(kernel: str, transposed: bool, columns: int):
    rng = torch.Generator().manual_seed(0)
    left, right = torch.randn((columns, 40), generator=rng), torch.randn((40, 30), generator=rng)
    right = right.T if transposed else right.T.contiguous()
    result = matmul.KERNELS[kernel](left, right)
    assert result.is_contiguous()
    expected = left.double().numpy() @ right.double().numpy().T
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        (True, 1, 7, True, "onednn"),
        (True, 1, 280, False, "onednn"),
        (False, 1, 7, True, "onednn, rows first"),
        (False, 1, 7, False, "numpy"),
        (False, 1, 280, True, "numpy"),
        (False, 2, 7, True, "onednn, rows first"),
        (False, 2, 7, False, "onednn"),
        (False, 2, 280, False, "torch"),
    ],
)
@pytest.mark.parametrize("has_onednn", [True, False])
def test_the_kernel_goes_by_the_processor_and_the_width(
    case: tuple[bool, int, int, bool, str], has_onednn: bool, monkeypatch: pytest.MonkeyPatch
):
    wide, threads, columns, forward, expected = case
    kernels = {"onednn": matmul._torch_matmul} if has_onednn else {}
    monkeypatch.setattr(matmul, "KERNELS", kernels | {"torch": matmul._torch_matmul})
    monkeypatch.setattr(matmul, "WIDE", wide)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    large, small = torch.empty(1024, 1024), torch.empty(1024, 64)
    kernel = matmul.kernel_of(columns, large if forward else large.T)
    if has_onednn:
        assert kernel == expected
    else:
        assert kernel in {"torch", "numpy"}
    assert matmul.kernel_of(columns, small) == ("onednn" if has_onednn else "torch")


@pytest.mark.parametrize("right", [torch.empty(0, 4), torch.ones(3, 1), torch.ones(3, 4).double()])
def test_what_no_kernel_takes_is_torchs_own(right: Tensor):
    left = torch.ones((2, right.shape[1]), dtype=right.dtype)
    assert torch.equal(matmul.matmul(left, right), left @ right.T)


def test_symmetric_products_are_numpys():
    x = torch.randn((50, 8), generator=torch.Generator().manual_seed(0))
    expected = x.double().T @ x.double()
    torch.testing.assert_close(matmul.symmetric_product(x).double(), expected, rtol=1e-5, atol=1e-5)
