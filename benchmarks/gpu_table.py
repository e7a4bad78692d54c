"""The figures of `gpu.py`: one JSON file that is whole after every row, and one aligned table."""

import json
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from machine import machine

ROOT = Path(__file__).resolve().parents[1]
WAITING = "not measured: the run ended before it"
MOST_NOTE = 110  # characters of a note in the table; the file has all of it

Figures = dict[str, float]


@dataclass
class Result:
    """What became of one row.

    Attributes:
        what: The work.
        batch: Images in a step, or None.
        precision: Format of the forward pass, or nothing.
        status: Whether there are figures.
        figures: Numbers by name and unit.
        note: Why there are none.
        details: The traceback of a failure.
        seconds: What the row took altogether.
    """

    what: str
    batch: int | None = None
    precision: str = ""
    status: Literal["measured", "failed", "not measured"] = "not measured"
    figures: Figures = field(default_factory=dict)
    note: str = WAITING
    details: str = ""
    seconds: float = 0.0


def described(device: torch.device) -> dict[str, Any]:
    """Chip, driver, versions, commit and date."""
    facts: dict[str, Any] = {
        **machine(),
        "device": device.type,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "git_commit": _said("git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if device.type == "cuda":
        chip = torch.cuda.get_device_properties(device)
        facts["gpu_memory_gib"] = round(chip.total_memory / 2**30, 1)
        facts["compute_capability"] = f"{chip.major}.{chip.minor}"
        facts["driver"] = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return facts


def _said(*command: str) -> str:
    """First line that a program prints, or ``unknown``."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip()


def write(out: Path, facts: dict[str, Any], results: list[Result]) -> None:
    """Write all figures so far; whoever ends the program finds a whole file."""
    part = out.with_name(f"{out.name}.part")
    part.write_text(json.dumps({"machine": facts, "rows": [vars(result) for result in results]}, indent=1) + "\n")
    part.replace(out)


def summary(result: Result) -> str:
    """The figures of one row, or why there are none."""
    return ", ".join(f"{_rounded(value)} {name}" for name, value in result.figures.items()) or result.note


def table(facts: dict[str, Any], results: list[Result]) -> str:
    """An aligned table under one line about the machine."""
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    lines = [["", "batch", "precision", *names, ""], *(_cells(result, names) for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(_aligned(line, widths)).rstrip() for line in lines)
    return "\n".join([", ".join(f"{key} {value}" for key, value in facts.items()), "", *rows])


def _cells(result: Result, names: list[str]) -> list[str]:
    note = result.note if len(result.note) <= MOST_NOTE else f"{result.note[: MOST_NOTE - 1]}…"
    numbers = (_rounded(result.figures[name]) if name in result.figures else "" for name in names)
    return [result.what, str(result.batch or ""), result.precision, *numbers, " ".join(note.split())]


def _aligned(line: list[str], widths: list[int]) -> list[str]:
    """Words to the left, numbers to the right."""
    last = len(line) - 1
    return [
        cell.ljust(width) if place in (0, 2, last) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
