"""The benchmark of class rows: the plain program computes the same loss, every arm runs, a failure says why."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.head.margins.arcface import ArcFace
from facelab.head.rows.full_softmax import FullSoftmax

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def classes() -> Any:
    return importlib.import_module("classes")


def sizes(count: int = 40) -> Any:
    return classes().Sizes(classes=count, batch=6, feat_dim=8, device=torch.device("cpu"), steps=1)


def test_the_plain_program_has_our_loss_and_gradient() -> None:
    dense = importlib.import_module("classes_dense")
    plain = dense.DenseRows(40, 8, 1.0).double()
    ours = FullSoftmax(40, 8, ArcFace(margin=dense.MARGIN, scale=dense.SCALE)).double()
    ours.weight.data.copy_(plain.weight.data)
    gradients = []
    for loss in (plain, lambda *batch: ours(*batch).loss):
        embedding, labels = classes().embeddings_and_labels(sizes())
        embedding = embedding.detach().double().requires_grad_()
        value = loss(embedding, labels)
        value.backward()
        gradients.append((value.detach(), embedding.grad))
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(plain.weight.grad, ours.weight.grad)


def test_its_sample_has_the_classes_of_the_batch() -> None:
    plain = importlib.import_module("classes_dense").DenseRows(40, 8, 0.2)
    embedding, labels = classes().embeddings_and_labels(sizes())
    plain(embedding, labels).backward()
    assert plain.weight.grad is not None
    taken = plain.weight.grad.abs().sum(dim=1) > 0
    assert int(taken.sum()) == 8
    assert bool(taken[labels].all())


def test_every_arm_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = classes()
    monkeypatch.setattr(module, "FEW", 20)
    for arm in filter(lambda one: one.fits_cpu, module.ARMS.values()):
        figures = module.measured_arm(arm, sizes(), tmp_path)
        assert figures.keys() >= {"ms", "peak GB"}
        assert figures["ms"] > 0
    assert len(module.measured_products(sizes())) == 4


def test_a_failure_says_why_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, out = classes(), tmp_path / "classes.json"

    def run(command: list[str], **_: Any) -> Any:
        if "--one" not in command:  # who asks for the machine's name
            raise FileNotFoundError
        failed = command[command.index("--one") + 1] == "dense 1"
        said = "" if failed else '{"ms": 2.0}\n'
        return module.subprocess.CompletedProcess(command, int(failed), said, "MemoryError: 80 GB\n" if failed else "")

    monkeypatch.setattr(module.subprocess, "run", run)
    module.main(classes=[100], arm=["dense 1", "PartialFC 0.1"], out=out)
    failed, measured = json.loads(out.read_text())["rows"]
    assert (failed["what"], failed["note"]) == ("dense 1, 100 classes", "ended with 1: MemoryError: 80 GB")
    assert measured["figures"] == {"ms": 2.0}
    assert "PartialFC 0.1, 100 classes" in capsys.readouterr().out
