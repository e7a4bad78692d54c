"""Where Triton's kernels run: on a GPU, or in Triton's interpreter (the package ``triton``) on a processor."""

from functools import partial
from typing import Any

import pytest
import torch


def rounding_to_nearest(convert: Any, given: Any, of: Any, to: Any, mode: Any) -> Any:
    """As a GPU does, which a test sees in the compiled kernels; Triton's interpreter cuts bf16 off."""
    if str(to) != "bf16":
        return convert(given, of, to, mode)
    return torch.from_numpy(given).bfloat16().view(torch.uint16).numpy()


@pytest.fixture(
    params=[pytest.param("interpreter", marks=pytest.mark.extras), pytest.param("gpu", marks=pytest.mark.cuda)]
)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the kernels run."""
    if request.param == "gpu":
        found: torch.device = request.getfixturevalue("gpu")
        if found.type == "cpu":
            pytest.skip("the kernels themselves are for GPUs")
        return found
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setattr(interpreter, "_convert_float", partial(rounding_to_nearest, interpreter._convert_float))
    # So that each has several parts to sum up, which on a GPU only large maps give them.
    monkeypatch.setattr("facelab.triton_kernels.batch_norm.PROGRAMS", 3)
    return torch.device("cpu")
