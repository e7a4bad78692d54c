"""Which kernels a GPU may take for products and convolutions of fp32 numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def kernels(*, tf32: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """Context of a run on a GPU; processors do not look at it.

    Args:
        tf32: Whether factors may be rounded to TF32, which has ten bits behind the point as fp16 and the range of fp32.
            Class rows have a setting of their own.
        cudnn_benchmark: Whether cuDNN tries its kernels for each new shape and takes the fastest one. Two runs may take
            different ones, which round differently; so not where torch is told to be deterministic.
    """
    cudnn: Any = torch.backends.cudnn  # of which torch declares a part
    products, convolutions = torch.backends.cuda.matmul, cudnn.conv
    before = products.fp32_precision, convolutions.fp32_precision, cudnn.benchmark
    products.fp32_precision = convolutions.fp32_precision = "tf32" if tf32 else "ieee"
    cudnn.benchmark = cudnn_tries(cudnn_benchmark)
    try:
        yield
    finally:
        products.fp32_precision, convolutions.fp32_precision, cudnn.benchmark = before


def cudnn_tries(wanted: bool) -> bool:
    """Whether cuDNN tries its kernels: not where torch is told to be deterministic."""
    return wanted and not torch.are_deterministic_algorithms_enabled()
