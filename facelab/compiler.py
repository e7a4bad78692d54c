"""Whether `torch.compile` has what it calls: Triton on a GPU, and a compiler of C or C++."""

import importlib.util
import os
import shutil
import sys

import torch

from facelab.errors import ConfigError

C_COMPILERS = ("cc", "gcc", "clang")  # which Triton calls for what starts its kernels
CPP_COMPILERS = {"darwin": ("clang++",), "win32": ("cl",)}  # elsewhere g++, for kernels of the CPU


def require_compiler(setting: str, device: torch.device, instead: str) -> None:
    """Refuse to compile for a device where a part is missing.

    Args:
        setting: What asks for it, as messages call it.
        device: For which kernels are made.
        instead: The setting that needs none.

    Raises:
        ConfigError: If Triton or a compiler is missing.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError(
                f"{setting} needs Triton, which is not installed; install it (torch for CUDA brings it on Linux), or "
                f"set {instead}."
            )
        _require("C", "CC", C_COMPILERS, setting, instead)
    else:
        _require("C++", "CXX", CPP_COMPILERS.get(sys.platform, ("g++",)), setting, instead)


def _require(language: str, variable: str, known: tuple[str, ...], setting: str, instead: str) -> None:
    wanted = [os.environ[variable]] if os.environ.get(variable) else known
    if not any(map(shutil.which, wanted)):
        raise ConfigError(
            f"{setting} needs a {language} compiler, and there is no {' or '.join(wanted)}; install one, name it in "
            f"the variable {variable}, or set {instead}."
        )
