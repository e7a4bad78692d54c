"""What the figures of a benchmark were measured on."""

import os
import platform
from pathlib import Path

import torch

import facelab


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int]:
    """Processor, GPU and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    described: dict[str, str | int] = {
        "cpu": model,
        "cores": cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "facelab": facelab.__version__,
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described
