"""The notebooks run from their first cell to their last, in plain Python, and carry no outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
RUN = """
import json, sys

names = {"__name__": "__main__"}
for number, source in enumerate(json.loads(sys.stdin.read())):
    exec(compile(source, f"code cell {number}", "exec"), names)
print(json.dumps({name: names[name] for name in sys.argv[1:]}))
"""


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run(path: Path, folder: Path, *names: str) -> dict[str, Any]:
    """Values of some names after all cells of a notebook."""
    sources = ["".join(cell["source"]) for cell in code_cells(path)]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *names],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_carries_no_outputs(path: Path) -> None:
    assert [cell for cell in code_cells(path) if cell["outputs"] or cell["execution_count"] is not None] == []


def test_every_notebook_is_run_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["quickstart"]


def test_quickstart_learns_to_tell_people_apart(tmp_path: Path) -> None:
    values = run(ROOT / "examples" / "quickstart.ipynb", tmp_path, "losses", "results")
    assert values["losses"][-1] < values["losses"][0]
    assert values["results"]["auc"] > 0.6
    assert values["results"]["rank 1"] > 2 / 12
    assert (tmp_path / "runs" / "quickstart" / "checkpoints").is_dir()


def test_a_cell_that_fails_is_noticed(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["x = 1\n", "assert x == 2"], "outputs": [], "execution_count": None}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    with pytest.raises(AssertionError, match="code cell 0"):
        run(tmp_path / "a.ipynb", tmp_path)
