"""libsvm's text file of a support vector regression with a radial kernel."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facelab.errors import DataError

EXPECTED = {"svm_type": "epsilon_svr", "kernel_type": "rbf"}


@dataclass(frozen=True)
class RadialSVR:
    """``f(x) = sum_i c_i exp(-gamma |x - v_i|^2) - rho``.

    Attributes:
        vectors: v, float64, (S, F).
        coefficients: c, float64, (S,).
        gamma: Width of the kernel.
        rho: Offset.
    """

    vectors: Tensor
    coefficients: Tensor
    gamma: float
    rho: float

    def __call__(self, features: Tensor) -> Tensor:
        """F of each row, float64, (B, F) -> (B,). A feature that is no number is far from every vector: f = -rho."""
        distance = torch.cdist(features, self.vectors.to(features.device, non_blocking=True)).square()
        similarity = torch.exp(-self.gamma * distance).nan_to_num(nan=0.0)
        return similarity @ self.coefficients.to(features.device, non_blocking=True) - self.rho


def read_svr(path: Path, features: int) -> RadialSVR:
    """Read a model file.

    Args:
        path: The file.
        features: F, how many the model must have.

    Raises:
        DataError: If the file is missing, damaged or of another kind of model.
    """
    try:
        head, _, body = path.read_text(encoding="ascii").partition("\nSV\n")
        settings = dict(line.split(" ", 1) for line in head.splitlines())
        gamma, rho, count = float(settings["gamma"]), float(settings["rho"]), int(settings["total_sv"])
        rows = [_row(line, features) for line in body.splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: is not a libsvm model of {features} features ({error}).") from None
    for key, value in EXPECTED.items():
        if settings.get(key) != value:
            raise DataError(f"{path}: {key} is {settings.get(key)}, but only {value} can be read.")
    if len(rows) != count or not rows:
        raise DataError(f"{path}: is cut off, it has {len(rows)} of {count} support vectors.")
    table = torch.tensor(rows, dtype=torch.float64)
    return RadialSVR(table[:, 1:].contiguous(), table[:, 0].contiguous(), gamma, rho)


def _row(line: str, features: int) -> list[float]:
    """Coefficient and dense vector of ``c 1:v1 2:v2 …``; what is left out is 0."""
    coefficient, *entries = line.split()
    row = [float(coefficient)] + [0.0] * features
    for entry in entries:
        index, value = entry.split(":")
        if not 1 <= int(index) <= features:
            raise ValueError(f"a vector has a feature {index}")
        row[int(index)] = float(value)
    return row
