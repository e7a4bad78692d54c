"""Matrix products of the class rows in fewer digits than fp32, whose terms are still added in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from facelab.errors import ConfigError

ClassPrecision = Literal["fp32", "tf32", "bf16"]


def check_class_precision(precision: ClassPrecision, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ConfigError: If it is ``tf32`` and the device no GPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            "training.class_precision is 'tf32', a format of NVIDIA's GPUs, but the class rows are on the "
            f"{device.type.upper()}; choose fp32, or bf16 where the processor multiplies it (AMX, AVX-512 BF16)."
        )


@contextmanager
def factors_in(precision: ClassPrecision, device: torch.device) -> Iterator[None]:
    """Context in which `multiply` and `add_product_` round fp32 factors to this format."""
    # oneDNN and cuBLAS round while they load, so that neither factor is copied. oneDNN leaves fp32 as it is where the
    # processor multiplies no bf16, and cuBLAS rounds to no bf16 of its own accord.
    setting = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if precision == "fp32" and device.type != "cuda":
        yield
        return
    before = setting.fp32_precision
    # What a run lets its network round (training.tf32) is not for class rows.
    setting.fp32_precision = "ieee" if device.type == "cuda" and precision != "tf32" else precision
    try:
        yield
    finally:
        setting.fp32_precision = before


def rounds_on_its_own(device: torch.device) -> bool:
    """Whether products outside of `factors_in` have their fp32 factors rounded on a device."""
    return device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"


def factor(matrix: Tensor, precision: ClassPrecision) -> Tensor:
    """What `multiply` and `add_product_` make of an fp32 matrix, for one that is a factor of several products."""
    if precision == "bf16" and matrix.is_cuda and matrix.dtype == torch.float32:
        return matrix.bfloat16()
    return matrix


def multiply(left: Tensor, right: Tensor, precision: ClassPrecision, out: Tensor | None = None) -> Tensor:
    """Matrix product of two fp32 matrices in fp32, inside of `factors_in`; float64 stays float64.

    Args:
        left: (M, K), or what `factor` made of it.
        right: (K, N), likewise.
        precision: As in `factors_in`.
        out: Where it is written, (M, N), if that is given.
    """
    left, right = factor(left, precision), factor(right, precision)
    if left.dtype == torch.bfloat16:
        product = torch.mm(left, right, out_dtype=torch.float32)
        return product if out is None else out.copy_(product)
    return torch.mm(left, right, out=out)


def add_product_(total: Tensor, left: Tensor, right: Tensor, precision: ClassPrecision) -> Tensor:
    """Add the matrix product of `multiply` to ``total``, (M, N), in place."""
    left, right = factor(left, precision), factor(right, precision)
    if left.dtype == torch.bfloat16:
        return total.add_(torch.mm(left, right, out_dtype=torch.float32))
    return total.addmm_(left, right)
