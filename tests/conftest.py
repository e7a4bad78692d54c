"""Shared fixtures: where golden and real data lie, and one thread per test process."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{what} not found: {folder} is missing (set {variable})")
    return folder


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder with outputs of the original implementations; the test is skipped without it."""
    return _folder("FACELAB_GOLDEN", ROOT.parent / "shared" / "golden", "golden data")


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """Folder with real faces, records and weights; the test is skipped without it."""
    return _folder("FACELAB_SHARED", ROOT.parent / "shared", "real data")
