"""Loss, gradients, buffers and metrics over two steps, whole on one process: what other ways to compute them must give.

These are two processes with uneven shards, and logits that come and go in chunks, on one process and on two.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.catalogue import build, entries
from facelab.head.base import HEADS, MarginHead, Terms
from facelab.head.candidates import Candidates, Product
from facelab.head.fused_product import FusedProduct
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.sample_weight import SAMPLE_WEIGHTS

BATCH, DIM, CLASSES, STEPS = 12, 16, 11, 2  # 11 classes: the shards are uneven
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
ENTRIES = sorted({*entries(HEADS), *HEADS.names()})  # with those of other packages that are installed
FUSED = {torch.float64: 1e-12, torch.float32: 1e-5}  # on one process


@dataclass(frozen=True)
class Case:
    """A head, and how many rows each class has."""

    name: str
    dtype: torch.dtype
    centres: int = 1

    def __str__(self) -> str:
        return f"{self.name}-{self.centres}-{self.dtype}"

    def head(self) -> MarginHead:
        return SumsOfNegatives(scale=16.0) if self.name == "sums" else build(HEADS, self.name, num_classes=CLASSES)


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


class Fused(FullSoftmax):
    """A few products at a time."""

    def product(self, features: Tensor, candidates: Candidates) -> Product:
        return FusedProduct(features, candidates, self.head.normalised, chunk=4 * BATCH)


NAMES = [*ENTRIES, "sums"]
NORMALISED = [name for name in ENTRIES if build(HEADS, name, num_classes=CLASSES).normalised]
CASES = [
    *(Case(name, dtype) for name in NAMES for dtype in TOLERANCE),
    *(Case(name, torch.float64, 2) for name in NORMALISED),
]
# Chunks on two processes: a softmax, norms, binary decisions, a sum of its own, several rows. The others are slow.
FEW = [
    *(Case(name, torch.float64) for name in ("ArcFace", "MagFace", "UniFace", "sums")),
    Case("ArcFace", torch.float32),
    Case("ArcFace", torch.float64, 2),
]


def features_and_labels(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    features = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(0.5, 130, BATCH, dtype=torch.float64)
    return (torch.nn.functional.normalize(features) * lengths[:, None]).to(dtype), labels


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def run(case: Case, owner: type[FullSoftmax]) -> list[Step]:
    """Two steps of one head with this process's part of batch and classes."""
    head = case.head()
    classifier = owner(CLASSES, DIM, head, seed=3, rows_per_class=case.centres).to(case.dtype)
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    steps = []
    for number in range(STEPS):
        features, labels = features_and_labels(number, case.dtype)
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

    whole: list[list[Step]]
    fused: dict[Case, list[Step]]
    rows: Tensor
    network_gradient: Tensor
    weighted_gradients: dict[str, Tensor]


def run_fused(cases: list[Case]) -> dict[Case, list[Step]]:
    return {case: run(case, Fused) for case in cases}


def run_everything(fused: list[Case]) -> Results:
    rows = FullSoftmax(3000, 4, build(HEADS, "CosFace"), seed=5).weight.detach()
    weighted = {name: weighted_gradient(name) for name in SAMPLE_WEIGHTS.names()}
    whole = [run(case, FullSoftmax) for case in CASES]
    return Results(whole, run_fused(fused), rows, network_gradient(), weighted)


@pytest.fixture(scope="module")
def one() -> Results:
    return run_everything(CASES)


@pytest.fixture(scope="module")
def two() -> list[Results]:
    return distributed.run_processes(run_everything, 2, FEW)


@pytest.fixture(scope="module")
def others_of_two() -> list[dict[Case, list[Step]]]:
    return distributed.run_processes(run_fused, 2, [case for case in CASES if case not in FEW])


every_case = pytest.mark.parametrize("case", range(len(CASES)), ids=map(str, CASES))


@every_case
def test_two_processes_equal_one(case: int, one: Results, two: list[Results]) -> None:
    require_equal(one.whole[case], [results.whole[case] for results in two], TOLERANCE[CASES[case].dtype])


@every_case
def test_chunks_equal_the_whole(case: int, one: Results) -> None:
    require_equal(one.whole[case], [one.fused[CASES[case]]], FUSED[CASES[case].dtype])


@pytest.mark.parametrize("case", FEW, ids=str)
def test_chunks_of_two_processes_equal_the_whole(case: Case, one: Results, two: list[Results]) -> None:
    fused = [results.fused[case] for results in two]
    require_equal(one.whole[CASES.index(case)], fused, TOLERANCE[case.dtype])


@pytest.mark.slow
def test_chunks_of_two_processes_equal_the_whole_in_every_case(
    one: Results, others_of_two: list[dict[Case, list[Step]]]
) -> None:
    for case in others_of_two[0]:
        fused = [processes[case] for processes in others_of_two]
        require_equal(one.whole[CASES.index(case)], fused, TOLERANCE[case.dtype])


def require_equal(expected: list[Step], processes: list[list[Step]], tolerance: float) -> None:
    for full, *shares in zip(expected, *processes, strict=True):
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
        for key, wanted in full.class_grads.items():
            assert_near([share.class_grads[key] for share in shares], wanted, tolerance)


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
