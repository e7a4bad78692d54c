"""The last section of docs/photos.md goes from photos to a file for a stranger, with fewer people than it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "photos.md").read_text()
_, WAY = PAGE.split("## A folder of photos to a model")
SMALLER = ("training.epochs=1",)
PEOPLE = ("6", "25")  # of fewer there are too few pairs for a threshold

# One process runs all commands, because starting takes longer than what they do.
DRIVER = """
import json, runpy, sys
from facelab.cli.main import app

for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    if words[0] == "python":
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")
    else:
        app(words, standalone_mode=False)
"""


def commands() -> list[list[str]]:
    """The page's, with fewer people and one epoch."""
    result = []
    for line in "".join(re.findall(r"```bash\n(.*?)```", WAY, re.DOTALL)).splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            words = ["python", str(ROOT / words[1]), *PEOPLE]
        else:
            assert words.pop(0) == "facelab", line
        result.append([*words, *(SMALLER if words[0] == "train" else ())])
    return result


@pytest.mark.slow
def test_photos_become_a_model_and_a_file_for_a_stranger(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", WAY, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-c", DRIVER, json.dumps(commands())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    (stranger,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    (tmp_path / "stranger.py").write_text(
        f"import sys\nsys.modules['facelab'] = sys.modules['torch'] = None\n{stranger}"
    )
    crops = sorted(str(path) for path in (tmp_path / "crops" / "test").glob("*/*.png"))[:3]
    assert all(cv2.imread(path).shape == (112, 112, 3) for path in crops)
    said = subprocess.run(
        [sys.executable, tmp_path / "stranger.py", tmp_path / "mine.onnx", *crops], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    cosines = np.array(json.loads(said.stdout))
    assert cosines.shape == (3, 3)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-3)
