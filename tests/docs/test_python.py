"""docs/python.md works as it stands: its Python runs in its order, and what it says of a value is so."""

import ast
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

import facelab
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.source import SyntheticFaces
from facelab.quality.table import write_scores
from facelab.run.run import run_training
from facelab.run.settings import load_config

ROOT = Path(__file__).parents[2]
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
GATED = ("adapter={DualLoRA: {rank: 2}}", "gate=sigmoid", "data.quality={Sharpness: {}}")
ADAPTED = ("mode=adaptation", "backbone=null", "base=runs/mine", *GATED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's runs, images and weights lie."""
    path = tmp_path_factory.mktemp("page")
    faces = SyntheticFaces(identities=2, per_identity=1, size=32, split="test")
    for number, names in enumerate((("a.jpg", "faces/ann/1.jpg"), ("b.jpg", "faces/bea/1.jpg"))):
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path / name), faces.read(number)[:, :, ::-1])
    state = facelab.create_model("EdgeFace-XXS").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path / "edgeface_xxs.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for run, words in (("mine", ()), ("tinyface", ADAPTED)):
            settings = load_config(str(ROOT / "tests" / "tiny_run.yaml"), ["training.epochs=1", *words])
            run_training(settings, Path("runs", run), Console(quiet=True))
        facelab.load("runs/mine").save("mine.safetensors")
        scorer = facelab.load("runs/tinyface").network.quality_scorer
        assert scorer is not None
        write_scores(Path("faces.csv"), ImageFolder(Path("faces")), np.array([0.3, 0.6]), scorer)
    return path


def taken_for_granted() -> dict[str, Any]:
    """Names of images that the page uses without saying where they come from."""
    arrays = [cv2.imread(name)[:, :, ::-1].copy() for name in ("a.jpg", "b.jpg")]
    return {
        "array_a": arrays[0],
        "array_b": arrays[1],
        "images": arrays,
        "tensor": torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2),
        "paths": ["faces/ann/1.jpg", "faces/bea/1.jpg"],
    }


def run_and_check(block: str, names: dict[str, Any]) -> int:
    """Run a block; an expression with ``# = value`` behind it must have that value. How many there were."""
    lines, checked = block.splitlines(), 0
    for statement in ast.parse(block).body:
        source = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
        said = source.partition("# = ")[2]
        if said:
            assert isinstance(statement, ast.Expr), source
            value = eval(compile(ast.Expression(statement.value), source, "eval"), names)
            assert repr(value) == said, source
            checked += 1
        else:
            exec(compile(ast.Module([statement], []), source, "exec"), names)
    return checked


def test_the_python_of_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = taken_for_granted()
    assert sum(run_and_check(block, names) for block in BLOCKS) >= 9
    assert Path("network.onnx").is_file()


def test_a_value_that_is_otherwise_is_noticed() -> None:
    assert run_and_check("1 + 1  # = 2\nx = 3", {}) == 1
    with pytest.raises(AssertionError):
        run_and_check("1 + 1  # = 3", {})
