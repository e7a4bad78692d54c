"""Small runs of the versions before load, resume to where they would have come, and compare."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import facelab
from facelab.distributed import run_processes
from facelab.run.run import run_training, saved_settings
from facelab.run.settings import make_config
from facelab.test_protocol.report.report_store import read_reports

VERSIONS = Path(__file__).parents[2] / "golden" / "versions"
# Of weights and embeddings. Where the runs were made they are equal bit by bit, but no processor is known by its name:
# virtual ones of one name differ in what their kernels add first.
APART = 1e-5
RUNS = {  # the model that an uninterrupted run came to
    "conventional": "conventional-end",
    "adapted": "adapted-end.safetensors",
    "two_processes": "two_processes-end.safetensors",
}


@pytest.fixture(params=sorted(VERSIONS.glob("*.tar.xz")), ids=lambda path: path.name.removesuffix(".tar.xz"))
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a version left, see ``tests/golden/versions/make.py``; paths in its settings start at this folder."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _resume(folder: str) -> int:
    """Go on with a run to its end; the update where it stands then."""
    config = make_config(saved_settings(Path(folder)), folder)
    return run_training(config, Path(folder), Console(quiet=True), resume=True).progress.update


def _require_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    apart = {name: float((found[name].double() - tensor.double()).abs().max()) for name, tensor in expected.items()}
    assert {name: distance for name, distance in apart.items() if not distance <= APART} == {}


def test_models_give_the_embeddings_that_they_gave(version: Path) -> None:
    with np.load(version / "expected.npz") as stored:
        expected = {name: stored[name] for name in stored}
    pixels, quality = expected.pop("pixels"), expected.pop("quality")
    for name, embedding in expected.items():
        scores: dict[str, Any] = {"quality": quality} if name.startswith("adapt") else {}
        model = facelab.load("conventional-end", adapter=name) if name.startswith("adapter.") else facelab.load(name)
        np.testing.assert_allclose(model.embed(pixels, **scores), embedding, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("run", RUNS)
def test_resumed_is_uninterrupted(version: Path, run: str) -> None:
    if run == "two_processes":
        assert run_processes(_resume, 2, run) == [4, 4]
    else:
        assert _resume(run) == 8
    found, expected = facelab.load(run).network.state_dict(), facelab.load(RUNS[run]).network.state_dict()
    _require_equal(found, expected)


def test_reports_are_read(version: Path) -> None:
    assert read_reports(version / "report" / "report.json")
