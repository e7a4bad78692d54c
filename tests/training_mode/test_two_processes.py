"""Losses against a teacher, over a batch and of hidden faces, and means of gates: two processes have what one has.

In one start for all of them, because starting takes longer than computing.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from facelab import distributed
from facelab.distributed import run_processes
from facelab.run.assembly import assemble
from facelab.run.run import run_training
from facelab.run.settings import load_config
from facelab.training_mode.distillation.loss import DISTILLATIONS, Outputs, Shapes
from facelab.training_mode.transface.ranking import MeanGate
from facelab.training_mode.triplet.objective import OBJECTIVES
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_rows

TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
CLASSES, BATCH, DIM = 7, 8, 6
LABELS = torch.tensor([0, 3, 6, 3, 0, 1, 1, 2])
AGAINST_TEACHER = (
    "mode.distillation.losses={SoftTarget: 0.1, FitNet: 1, PKT: 100, FT: 1, RKD: 1, NST: 1, Angular: 1, "
    "MarginDistillation: 0.1}"
)
OVER_BATCH = (
    "mode.triplet.losses={Triplet: {select: all, margin: 1}, Contrastive: 1, TupletMargin: {scale: 8}, Center: 0.1}"
)
TRIPLET = ["mode=triplet", "classifier=null", "head=null", "data.sampler={ClassBalanced: {images_per_class: 4}}"]

OCCLUSION = ["mode={occlusion: {probability: 1, segmentation: 1}}", "data.augment.occlude={probability: 0.5}"]


@dataclass(frozen=True)
class Share:
    """What one process finds, in float64: of its own images and classes, or equal on all.

    Attributes:
        loss: By the loss's name.
        gradient: Of its embeddings, as a network in DistributedDataParallel would get it.
        rows: Gradients of its logits, or centers of its classes, (C_own, …) or nothing.
    """

    loss: dict[str, float]
    gradient: dict[str, Tensor]
    rows: dict[str, Tensor]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def against_a_teacher(count: int) -> Share:
    rank = distributed.rank()
    part = slice(rank * BATCH // count, (rank + 1) * BATCH // count)
    classes = slice(*distributed.class_range(CLASSES, rank, count))
    given = {"student": Shapes(DIM), "teacher": Shapes(DIM), "rows": random(0, CLASSES, DIM)[classes]}
    found = Share({}, {}, {})
    for name in DISTILLATIONS.names():
        if "maps" in DISTILLATIONS.get(name).needs:
            continue
        loss = DISTILLATIONS.build(name, **given, num_classes=CLASSES)
        student = random(1, BATCH, DIM)[part].requires_grad_()
        logits = random(2, BATCH, CLASSES)[:, classes].clone().requires_grad_()
        teacher = Outputs(random(3, BATCH, DIM)[part], logits=random(4, BATCH, CLASSES)[:, classes])
        value = loss(Outputs(student, logits=logits), teacher, LABELS[part])
        value.backward()
        found.loss[name] = float(value.detach())
        found.gradient[name] = torch.zeros_like(student) if student.grad is None else student.grad / count
        found.rows[name] = torch.zeros_like(logits.T) if logits.grad is None else logits.grad.T
    return found


def over_a_batch(count: int) -> Share:
    rank = distributed.rank()
    part = slice(rank * BATCH // count, (rank + 1) * BATCH // count)
    found = Share({}, {}, {})
    for name in OBJECTIVES.names():
        if name == "MetricLearning":  # computes on all images alike, whatever its loss is
            continue
        objective = OBJECTIVES.build(name, num_classes=CLASSES, feat_dim=DIM, seed=0).double()
        own, owner = random(1, BATCH, DIM)[part].requires_grad_(), objective.row_owner()
        for _ in range(2):  # the second time from centers that have moved
            own.grad = None
            everything = distributed.use_commonly(distributed.gather_rows(own))
            loss = objective(everything, distributed.gather_labels(LABELS[part]))
            loss.backward()
            if owner is not None:
                owner.after_update()
        assert own.grad is not None
        found.loss[name], found.gradient[name] = float(loss.detach()), own.grad / count
        found.rows[name] = own.new_zeros(0) if owner is None else owner.row_tensors()["weight"]
    return found


def first_gradients(words: list[str]) -> list[Tensor]:
    """Of what all processes share, for the first batch; in evaluation mode BatchNorm does not see a whole batch."""
    parts = assemble(load_config(TINY, words))
    for module in parts.mode.trained_modules():
        module.eval()
    parts.mode.step(next(iter(parts.feed.batches(0, 0)))).loss.backward()
    parameters = [parameter for module in parts.mode.trained_modules() for parameter in module.parameters()]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@dataclass(frozen=True)
class Found:
    """Everything that a process computes."""

    shares: dict[str, Share]
    gradients: dict[str, list[Tensor]]
    mean_gate: Tensor


def compute(count: int, teacher: str, folder: str) -> Found:
    distillation = ["mode=distillation", f"mode.distillation.teacher={teacher}", AGAINST_TEACHER]
    gradients = {
        "distillation": first_gradients([*distillation, "mode.distillation.view=clean"]),
        "triplet": first_gradients([*TRIPLET, OVER_BATCH]),
        "occlusion": first_gradients(OCCLUSION),
    }
    if folder:
        config = load_config(TINY, [*TRIPLET, OVER_BATCH, "training.epochs=1"])
        run_training(config, Path(folder), Console(quiet=True))
    mean_gate = MeanGate(DIM)
    for step in range(2):
        mean_gate.update(random(step, count, BATCH // count, DIM)[distributed.rank()])
    shares = {"distillation": against_a_teacher(count), "triplet": over_a_batch(count)}
    return Found(shares, gradients, mean_gate.mean)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes trained for an epoch."""
    return tmp_path_factory.mktemp("two") / "run"


@pytest.fixture(scope="module")
def alone_and_two(tmp_path_factory: pytest.TempPathFactory, run: Path) -> tuple[Found, list[Found]]:
    teacher = tmp_path_factory.mktemp("teacher") / "teacher"
    run_training(load_config(TINY, ["training.epochs=1", "seed=5"]), teacher, Console(quiet=True))
    return compute(1, str(teacher), ""), run_processes(compute, 2, 2, str(teacher), str(run))


@pytest.mark.parametrize("mode", ["distillation", "triplet"])
def test_they_have_the_losses_of_one(mode: str, alone_and_two: tuple[Found, list[Found]]) -> None:
    alone, shares = alone_and_two[0].shares[mode], [found.shares[mode] for found in alone_and_two[1]]
    for name, loss in alone.loss.items():
        assert sum(share.loss[name] for share in shares) / 2 == pytest.approx(loss, rel=1e-9), name
        for own, parts in (
            (alone.gradient[name], [share.gradient[name] for share in shares]),
            (alone.rows[name], [share.rows[name] for share in shares]),
        ):
            torch.testing.assert_close(torch.cat(parts), own, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["distillation", "triplet", "occlusion"])
def test_their_networks_have_the_gradients_of_one(mode: str, alone_and_two: tuple[Found, list[Found]]) -> None:
    alone, both = alone_and_two
    for found in both:
        torch.testing.assert_close(found.gradients[mode], alone.gradients[mode], rtol=1e-3, atol=2e-4)


def test_they_rank_patches_alike(alone_and_two: tuple[Found, list[Found]]) -> None:
    alone, both = alone_and_two
    assert both[0].mean_gate.equal(both[1].mean_gate)
    torch.testing.assert_close(both[0].mean_gate, alone.mean_gate)


def test_one_process_goes_on_from_the_centers_of_two(run: Path, alone_and_two: tuple[Found, list[Found]]) -> None:
    checkpoint = CheckpointStore(run / "checkpoints").find("last")
    centers = read_rows(checkpoint, 0, 8, "Center")["weight"]
    assert centers.shape == (8, 16)
    assert bool(centers.any(dim=1).all())
    config = load_config(TINY, [*TRIPLET, OVER_BATCH, "training.epochs=2"])
    assert run_training(config, run, Console(quiet=True), resume=True, allow_changes=True).progress.complete
