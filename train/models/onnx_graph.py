"""A network as one ONNX file, which is held to the network before it is kept."""

import contextlib
import importlib.util
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch

from featurestore.errors import ArtifactError, library_needed
from train.models.checkpoint import TrainedModel

FILE = "model.onnx"
CLOSE = 1e-5  # how far probabilities of the two may be apart
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Refuse to begin without the libraries that write and run ONNX; they are not imported.

    Raises
    ------
    ArtifactError
        One is missing.
    """
    with library_needed("The model cannot be written as ONNX", "export"):
        if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise ImportError(f"no {', no '.join(lacking)}")


def write_onnx(trained: TrainedModel, file: Path) -> None:
    """Write the network as one ONNX file, for any number of rows, and see that it agrees.

    Raises
    ------
    ArtifactError
        It gives other probabilities.
    """
    import onnxruntime

    network, dim = trained.network.cpu().eval(), trained.spec.dim
    rng = torch.Generator().manual_seed(0)
    example = torch.randn((2, dim), generator=rng)
    rows = torch.export.Dim("rows")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of torchvision, which is not here
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, verbose=False, external_data=False,
            input_names=["embedding"], output_names=["probabilities"],
            dynamic_shapes=({0: rows},),
        )  # fmt: skip
        assert program is not None
        program.save(str(file), external_data=False)
    batch = 3 * torch.randn((64, dim), generator=rng)
    session = onnxruntime.InferenceSession(str(file))
    [probabilities] = session.run(None, {"embedding": batch.numpy()})
    with torch.no_grad():
        apart = float(np.abs(np.asarray(probabilities) - network(batch).numpy()).max())
    if not apart <= CLOSE:
        raise ArtifactError(
            "ONNX gives other probabilities than the network", found=f"up to {apart:.1e} apart",
            fix="export another head, or with another version of torch and onnxruntime",
        )  # fmt: skip
