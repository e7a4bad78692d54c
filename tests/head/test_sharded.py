"""Two processes with uneven shards give what one gives: loss, gradients, buffers and metrics, over two steps."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.catalogue import build, entries
from facelab.head.base import HEADS, MarginHead, Terms
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.sample_weight import SAMPLE_WEIGHTS

BATCH, DIM, CLASSES, STEPS = 12, 16, 11, 2  # 11 classes: the shards are uneven
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
ENTRIES = sorted({*entries(HEADS), *HEADS.names()})  # with those of other packages that are installed
CASES = [(name, dtype) for name in [*ENTRIES, "sums", "sub-centres"] for dtype in TOLERANCE]


class SumsOfNegatives(MarginHead):
    """A head that uses what no head of the catalogue does: statistics, and terms with gradient beside the negatives."""

    def statistics(self, cosine: Tensor, terms: Terms, negative: Tensor) -> dict[str, Tensor]:
        return {"sum": (cosine * negative).sum(dim=1)}

    def positive(self, target: Tensor, terms: Terms) -> Tensor:
        return target - 0.01 * terms.statistics["sum"]

    def negatives(self, cosine: Tensor, terms: Terms) -> Tensor:
        return cosine * (1.0 + 0.1 * terms.target.unsqueeze(1) + 0.01 * terms.norms.unsqueeze(1))

    def regularizer(self, terms: Terms) -> Tensor:
        return (terms.norms * terms.target).mean()


@dataclass(frozen=True)
class Step:
    """What one step leaves behind on one process."""

    loss: Tensor
    feature_grad: Tensor
    row_grad: Tensor
    bias_grad: Tensor | None
    class_grads: dict[str, Tensor]
    head_grads: dict[str, Tensor]
    buffers: dict[str, Tensor]
    metrics: dict[str, Tensor]


def features_and_labels(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    features = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(0.5, 130, BATCH, dtype=torch.float64)
    return (torch.nn.functional.normalize(features) * lengths[:, None]).to(dtype), labels


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def run(name: str, dtype: torch.dtype) -> list[Step]:
    """Two steps of one head with this process's part of batch and classes."""
    known = {"sums": SumsOfNegatives(scale=16.0), "sub-centres": build(HEADS, "ArcFace")}
    head = known[name] if name in known else build(HEADS, name, num_classes=CLASSES)
    rows_per_class = 3 if name == "sub-centres" else 1
    classifier = FullSoftmax(CLASSES, DIM, head, seed=3, rows_per_class=rows_per_class).to(dtype)
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    steps = []
    for number in range(STEPS):
        features, labels = features_and_labels(number, dtype)
        own = features[start:stop].clone().requires_grad_()
        classifier.zero_grad()
        output = classifier(own, labels[start:stop])
        output.loss.backward()
        assert own.grad is not None
        assert classifier.weight.grad is not None
        bias = classifier.class_bias
        buffers = {key: value.clone() for key, value in head.named_buffers()}
        steps.append(
            Step(
                output.loss.detach(),
                own.grad,
                classifier.weight.grad.clone(),
                None if bias is None or bias.grad is None else bias.grad.clone(),
                {key: gradient(value) for key, value in classifier.class_parameters.items()},
                {key: value.grad.clone() for key, value in head.named_parameters() if value.grad is not None},
                buffers,
                dict(output.metrics),
            )
        )
    return steps


def network_gradient() -> Tensor:
    """Gradient of a network before the classifier; MagFace's regulariser must be counted once."""
    network = nn.Linear(DIM, DIM, bias=False, dtype=torch.float64)
    nn.init.eye_(network.weight)
    trained = nn.parallel.DistributedDataParallel(network) if distributed.world_size() > 1 else network
    classifier = FullSoftmax(CLASSES, DIM, build(HEADS, "MagFace"), seed=3).double()
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    features, labels = features_and_labels(0, torch.float64)
    classifier(trained(features[start:stop]), labels[start:stop]).loss.backward()
    assert network.weight.grad is not None
    return network.weight.grad


def weighted_gradient(sample_weight: str) -> Tensor:
    """Gradient of a network whose samples weigh by their losses, and by its own outputs."""
    network = nn.Linear(DIM, DIM, bias=False, dtype=torch.float64)
    nn.init.eye_(network.weight)
    trained = nn.parallel.DistributedDataParallel(network) if distributed.world_size() > 1 else network
    classifier = FullSoftmax(CLASSES, DIM, build(HEADS, "ArcFace"), seed=3).double()
    spec: dict[str, dict[str, Any] | None] = {sample_weight: {"k": 5} if sample_weight == "ATk" else {}}
    classifier.sample_weight = build(SAMPLE_WEIGHTS, spec)
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    features, labels = features_and_labels(0, torch.float64)
    embedding = trained(features[start:stop])
    classifier(embedding, labels[start:stop], 1.0 + torch.exp(-embedding.std(dim=1))).loss.backward()
    assert network.weight.grad is not None
    return network.weight.grad


@dataclass(frozen=True)
class Results:
    """All cases of one process; all in one start of processes, because starting takes longer than computing."""

    steps: list[list[Step]]
    rows: Tensor
    network_gradient: Tensor
    weighted_gradients: dict[str, Tensor]


def run_everything() -> Results:
    rows = FullSoftmax(3000, 4, build(HEADS, "CosFace"), seed=5).weight.detach()
    weighted = {name: weighted_gradient(name) for name in SAMPLE_WEIGHTS.names()}
    return Results([run(name, dtype) for name, dtype in CASES], rows, network_gradient(), weighted)


@pytest.fixture(scope="module")
def one() -> Results:
    return run_everything()


@pytest.fixture(scope="module")
def two() -> list[Results]:
    return distributed.run_processes(run_everything, 2)


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{name}-{dtype}" for name, dtype in CASES])
def test_two_processes_equal_one(case: int, one: Results, two: list[Results]) -> None:
    tolerance = TOLERANCE[CASES[case][1]]
    for full, *shares in zip(one.steps[case], *(results.steps[case] for results in two), strict=True):
        for share in shares:
            torch.testing.assert_close(share.loss, full.loss, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(share.head_grads, full.head_grads, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(share.buffers, full.buffers, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(share.metrics, full.metrics, rtol=tolerance, atol=tolerance)
        # Each process's own samples, times the number of processes: DistributedDataParallel divides by it again.
        assert_near([share.feature_grad / len(shares) for share in shares], full.feature_grad, tolerance)
        assert_near([share.row_grad for share in shares], full.row_grad, tolerance)
        if full.bias_grad is not None:
            assert_near([share.bias_grad for share in shares], full.bias_grad, tolerance)
        for key, expected in full.class_grads.items():
            assert_near([share.class_grads[key] for share in shares], expected, tolerance)


def assert_near(shares: list[Any], expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        torch.cat(shares), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


def test_rows_at_start_do_not_depend_on_the_number_of_processes(one: Results, two: list[Results]) -> None:
    assert torch.cat([results.rows for results in two]).equal(one.rows)


def test_network_in_distributed_data_parallel_gets_the_gradient_of_one_process(
    one: Results, two: list[Results]
) -> None:
    for results in two:
        assert_near([results.network_gradient], one.network_gradient, 1e-9)


def test_samples_weigh_as_in_one_process(one: Results, two: list[Results]) -> None:
    for share in two:
        torch.testing.assert_close(share.weighted_gradients, one.weighted_gradients, rtol=1e-9, atol=1e-12)
