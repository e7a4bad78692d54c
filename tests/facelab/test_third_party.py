"""A head from another package, found by its entry point, trained and tested without a change to ours."""

import os
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "tiny_run.yaml"

HEAD = '''
"""Heads of another project."""
from torch import Tensor

from facelab.head.base import HEADS, MarginHead, Terms


@HEADS.register("HalfMargin")
class HalfMargin(MarginHead):
    """Takes half of the margin off the target cosine.

    Args:
        margin: Subtracted in full from the target.
        scale: Norm of the normalised embeddings.
    """

    def __init__(self, margin: float = 0.4, scale: float = 16.0) -> None:
        super().__init__(scale=scale)
        self.margin = margin

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        """Cosine with margin, (B,) -> (B,)."""
        return target - self.margin / 2
'''


def run(folder: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "facelab", *words], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_package(folder: Path) -> None:
    (folder / "other_heads.py").write_text(HEAD)
    info = folder / "other_heads-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-heads\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[facelab.heads]\nother = other_heads\n")


def test_a_head_of_another_package_is_listed_and_trained(tmp_path: Path) -> None:
    write_package(tmp_path)
    assert "HalfMargin" in run(tmp_path, "list", "heads")
    words = ("train", str(CONFIG), "head={HalfMargin: {margin: 0.2}}", "training.epochs=1", "--run", "run")
    assert "run" in run(tmp_path, *words)
    assert "HalfMargin" in (tmp_path / "run" / "config.yaml").read_text()
    assert (tmp_path / "run" / "checkpoints" / "index.json").is_file()
