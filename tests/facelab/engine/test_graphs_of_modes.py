"""Steps of modes and heads by a graph, recorded on the CPU or made by a GPU, against plain ones."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from facelab.engine.cuda_graph import refuse_cuda_graph
from facelab.engine.loop import plain_step
from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import Classifier
from facelab.run.assembly import RunParts, assemble
from facelab.run.run import run_training, step_graph
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
GATED = ["adapter={DualLoRA: {rank: 2, dropout: 0}}", "gate=sigmoid", "data.quality={Sharpness: {}}"]
MODES = {
    "average": ["mode.conventional.ema=0.9"],
    "clipped": ["training.clip_norm=1", "optimizer={name: adamw, lr: 0.001}"],
    "adaptation": ["mode={adaptation: {distillation: 1.0}}", "backbone=null", "base={base}", *GATED],
    "distillation": ["mode.distillation.teacher={base}"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run to go on from."""
    folder = tmp_path_factory.mktemp("base") / "base"
    run_training(load_config(TINY, ["training.epochs=1"]), folder, Console(quiet=True))
    return folder


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are not looked at there, and pixels do not go through OpenCV, which nobody would record."""
    monkeypatch.setattr(Classifier, "_check_labels", lambda self, labels: None)
    monkeypatch.setattr("facelab.inputs._looked_up", lambda pixels, table: table[pixels.long()])


def losses(parts: RunParts, graph: bool) -> list[float]:
    step = step_graph(parts.mode, parts.optim) if graph else plain_step(parts.mode, parts.optim)
    found = []
    for epoch in range(2):
        for batch in parts.feed.batches(epoch, 0):
            found.append(float(step(batch)[0].loss.detach()))
            parts.mode.after_update()
    parts.optim.check()
    return found


@pytest.mark.parametrize("name", [*MODES, *(f"head {head}" for head in HEADS.names())])
def test_a_graph_makes_the_updates_of_plain_steps(name: str, base: Path, graph_device: str) -> None:
    words = MODES.get(name, [f"head={name.removeprefix('head ')}"])
    words = [word.replace("{base}", str(base)) for word in words]
    made = [assemble(load_config(TINY, [*words, f"training.device={graph_device}"])) for _ in range(2)]
    if made[0].mode.host_work():
        pytest.skip(made[0].mode.host_work())
    torch.testing.assert_close(losses(made[1], graph=True), losses(made[0], graph=False), rtol=1e-2, atol=1e-2)


def test_what_moves_a_sample_of_the_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = assemble(load_config(TINY, ["classifier={PartialFC: {sample_rate: 0.5}}"]))
    monkeypatch.setattr(parts.optim, "device", torch.device("cuda"))
    with pytest.raises(ConfigError, match="RowSGD decides in each step which class rows to move"):
        refuse_cuda_graph(parts.optim, parts.mode.host_work())
