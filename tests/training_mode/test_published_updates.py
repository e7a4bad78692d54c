"""Recipes of InsightFace and PETALface move network and class rows as a plain loop of the original program does."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.inputs import InputSpec
from facelab.run.assembly import open_optimization
from facelab.run.settings import RunConfig, load_config
from facelab.training_mode.base import Supplies
from facelab.training_mode.conventional.mode import Conventional

CLASSES, DIM, BATCH, UPDATES, PER_EPOCH = 12, 16, 8, 4, 3
# The margin of each recipe, and how far the rows of the people seen turn, on average and in degrees: unit rows that are
# clipped together with the network turn by 1.2 where the published ones turn by 85.
RECIPES = {
    "conventional/insightface": ("arc", 70.0),
    "conventional/petalface-webface4m": ("arc", 7.0),
    "conventional/petalface-webface12m": ("arc", 7.0),
    "adaptation/petalface-tinyface": ("cos", 3.0),
    "adaptation/petalface-briar": ("cos", 3.0),
}


def small_mode(config: RunConfig) -> tuple[Conventional, FullSoftmax]:
    """Conventional training of a small network with the recipe's head and class rows, in float64."""
    torch.manual_seed(0)
    network = MobileFaceNet(InputSpec(height=16, width=16), feat_dim=DIM, width=0.25)
    mode = Conventional(Supplies(network.double(), CLASSES, config.head, config.classifier, config.seed))
    assert isinstance(mode.classifier, FullSoftmax)
    return mode, mode.classifier.double()


def published_rate(config: RunConfig, update: int) -> float:
    """arcface_torch's PolynomialLRWarmup: the very first update runs at the full rate."""
    warmup, total = int(config.schedule.warmup_epochs * PER_EPOCH), config.training.epochs * PER_EPOCH
    if 0 < update < warmup:
        return config.optimizer.lr * update / warmup
    return config.optimizer.lr * (1.0 - max(update - warmup, 0) / (total - warmup))


def published_loss(embedding: Tensor, rows: Tensor, labels: Tensor, margin: str) -> Tensor:
    """Cross entropy with the margin that arcface_torch sets on the target without autograd; s = 64."""
    cosine = normalize(embedding) @ normalize(rows).T
    target = cosine.gather(1, labels[:, None]).detach()
    moved = (target.acos() + 0.5).cos() if margin == "arc" else target - 0.4
    return cross_entropy(64.0 * cosine.scatter_add(1, labels[:, None], moved - target), labels)


def published_loop(
    config: RunConfig, margin: str, network: nn.Module, rows: Tensor, batches: list[tuple[Tensor, Tensor]]
) -> None:
    """Train in place; the norms that are clipped are above the bound."""
    kind = torch.optim.SGD if config.optimizer.name == "sgd" else torch.optim.AdamW
    momentum = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    groups = [{"params": list(network.parameters())}, {"params": [rows]}]
    optimizer = kind(groups, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay, **momentum)
    for update, (images, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = published_rate(config, update)
        optimizer.zero_grad()
        published_loss(network(images), rows, labels, margin).backward()
        assert nn.utils.clip_grad_norm_(network.parameters(), 5) > 5
        optimizer.step()


def parameters(network: nn.Module, rows: Tensor) -> list[Tensor]:
    """Everything that is trained."""
    return [*network.parameters(), rows]


def degrees(before: Tensor, after: Tensor) -> Tensor:
    """How far rows turned."""
    return torch.rad2deg(torch.cosine_similarity(before, after).clamp(-1, 1).acos())


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_updates_are_those_of_a_plain_loop(name: str) -> None:
    margin, turn = RECIPES[name]
    config = load_config(name, ["training.precision=fp32", f"training.batch_size={BATCH}"])
    mode, classifier = small_mode(config)
    network = mode.network
    theirs, rows = copy.deepcopy(network), nn.Parameter(classifier.weight.detach().clone())
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(UPDATES, BATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (UPDATES, BATCH), generator=generator)
    batches = list(zip(images, labels, strict=True))
    published_loop(config, margin, theirs, rows, batches)

    before = classifier.weight.detach().clone()
    optim = open_optimization(config, mode, PER_EPOCH, torch.device("cpu"))
    for image, label in batches:
        optim.update(classifier(network(image), label).loss)
    optim.check()
    for ours, other in zip(parameters(network, classifier.weight), parameters(theirs, rows), strict=True):
        # A bias before BatchNorm has a gradient of rounding alone, which AdamW enlarges: hence the absolute tolerance.
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-10)
    seen = labels.unique()
    assert degrees(before, classifier.weight.detach())[seen].mean() > turn


@pytest.mark.parametrize("name", RECIPES)
def test_class_rows_start_as_published(name: str) -> None:
    config = load_config(name)
    network = MobileFaceNet(InputSpec(height=16, width=16), feat_dim=64, width=0.25)
    classifier = Supplies(network, 400, config.head, config.classifier).build_classifier()
    rows = classifier.row_tensors()["weight"].detach()
    assert float(rows.std()) == pytest.approx(0.01, rel=0.02)
    assert float(rows.norm(dim=1).std()) == pytest.approx(0.01 / math.sqrt(2), rel=0.2)  # a chi distribution's
