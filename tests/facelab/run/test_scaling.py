"""What a loss and a gradient mean on several processes and in several passes: those of the global batch in one.

The rule is written in docs/scaling.md. Plain descent with rate 1 shows every gradient as the way that a parameter went.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.engine.loop import Callback, Progress, train
from facelab.inputs import InputSpec
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
NAME = "LinearOfPixels"
BATCH, CLASSES = 12, 3  # on two processes, one has two classes and one has one
HEADS = ("CosFace", "MagFace", "UniFace")  # a margin; a regulariser and the norms; binary decisions with a learned bias
CHUNKS = "CosFace, with the gradient of rows in chunks"
ACCUMULATE = (1, 2)

Gone = dict[tuple[str, int], dict[str, Tensor]]


class LinearOfPixels(Backbone):
    """Without BatchNorm, whose statistics depend on how images are shared out."""

    def __init__(self, feat_dim: int = 8, input_spec: InputSpec = FACEXZOO_INPUT) -> None:
        super().__init__(input_spec, feat_dim)
        self.linear = nn.Linear(3 * 4 * 4, feat_dim)

    def features(self, image: Tensor) -> Features:
        return Features(30 * self.linear(nn.functional.adaptive_avg_pool2d(image, 4).flatten(1)))


class Logged(Callback):
    """Keeps what was logged last."""

    def on_log(self, progress: Progress, values: dict[str, float]) -> None:  # type: ignore[override]
        self.values = values


def one_update(head: str, accumulate: int) -> dict[str, Tensor]:
    """How far each parameter went in one update, what was logged, and the range of this process's class rows."""
    source = f"data.source={{SyntheticFaces: {{identities: {CLASSES}, per_identity: {BATCH // CLASSES}}}}}"
    plain = ["optimizer.lr=1.0", "optimizer.momentum=0", "optimizer.weight_decay=0", "schedule.name=constant"]
    words = [
        f"backbone={NAME}",
        f"head={head.partition(',')[0]}",
        f"classifier={{FullSoftmax: {{gradient: {'chunks' if head == CHUNKS else 'whole'}}}}}",
        source,
        f"training.batch_size={BATCH}",
        "training.epochs=1",
        "data.augment.flip=0",
    ]
    parts = assemble(load_config(TINY, [*words, *plain, f"training.accumulate={accumulate}"]))
    (owner,) = parts.mode.row_owners().values()
    rows = {f"row.{name}": tensor for name, tensor in owner.row_tensors().items()}
    moving = {**dict(parts.mode.network.named_parameters()), **dict(owner.head.named_parameters()), **rows}
    before = {name: tensor.detach().clone() for name, tensor in moving.items()}
    logged = Logged()
    train(parts.mode, parts.feed, parts.optim, [logged], progress=parts.progress, log_every=1)
    gone = {name: before[name] - tensor.detach() for name, tensor in moving.items()}
    return gone | {name: torch.tensor(logged.values[name]) for name in ("loss", "grad_norm")}


def all_updates() -> Gone:
    if NAME not in BACKBONES.names():
        BACKBONES.register(NAME)(LinearOfPixels)
    return {(head, accumulate): one_update(head, accumulate) for head in (*HEADS, CHUNKS) for accumulate in ACCUMULATE}


@pytest.fixture(scope="module")
def one() -> Gone:
    return all_updates()


@pytest.fixture(scope="module")
def two() -> list[Gone]:
    return distributed.run_processes(all_updates, 2)


@pytest.mark.parametrize("accumulate", ACCUMULATE)
@pytest.mark.parametrize("head", [*HEADS, CHUNKS])
def test_loss_and_gradients_are_those_of_one_process_in_one_pass(
    head: str, accumulate: int, one: Gone, two: list[Gone]
) -> None:
    expected = one[head, 1]
    processes = [gone[head, accumulate] for gone in two]
    for name, tensor in expected.items():
        assert float(tensor.abs().max()) > 0, name
        shares = [gone[name] for gone in processes]
        found = [torch.cat(shares)] if name.startswith("row.") else shares
        for value in [*found, one[head, accumulate][name]]:
            torch.testing.assert_close(value, tensor, rtol=1e-4, atol=1e-5 * float(tensor.abs().max()), msg=name)
