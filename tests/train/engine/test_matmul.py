"""The product: oneDNN's where torch has it, else torch's own."""

import pytest
import torch

from train.engine import matmul


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")
def test_torch_has_the_private_product():
    """`matmul` of train/engine/matmul.py relies on `torch.ops.mkldnn._linear_pointwise`."""
    assert matmul.has_onednn()


@pytest.mark.parametrize("raised", [AttributeError, RuntimeError])
def test_without_it_the_product_is_torchs_own(
    raised: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise raised("another signature")

    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    expected = matmul.matmul(x, weight)
    monkeypatch.setattr(matmul, "_onednn_matmul", refuse)
    assert not matmul.has_onednn()
    monkeypatch.setattr(matmul, "ONEDNN", matmul.has_onednn())
    torch.testing.assert_close(matmul.matmul(x, weight), expected)
