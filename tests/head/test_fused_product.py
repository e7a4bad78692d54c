"""Logits that come and go in chunks: an oracle, derivatives, memory, precision, and sums of two banks of rows.

`test_sharded` compares them with the whole matrix for every head.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.candidates import Candidates, Nearest, Product, WholeProduct, cosines
from facelab.head.class_precision import ClassPrecision, check_class_precision
from facelab.head.classifier import LARGEST_WHOLE
from facelab.head.fused_product import FusedProduct
from facelab.head.margin_loss import MarginLoss
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[1] / "tiny_run.yaml")
BATCH, DIM, CLASSES = 8, 6, 23


class Fused(FullSoftmax):
    """Four classes at a time."""

    def product(self, features: Tensor, candidates: Candidates) -> Product:
        return FusedProduct(features, candidates, self.head.normalised, self.class_precision, chunk=4 * len(features))


def head_of(name: str) -> MarginHead:
    return build(HEADS, name, num_classes=CLASSES)


def batch(classes: int = CLASSES, dim: int = DIM, size: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = 20 * normalize(torch.randn(size, dim, generator=generator, dtype=torch.float64))
    return features, torch.randint(classes, (size,), generator=generator)


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.skipif(not hasattr(functional, "linear_cross_entropy"), reason="torch has it from 2.13 on")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_softmax_is_the_cross_entropy_of_a_linear_layer_of_torch(dtype: torch.dtype, tolerance: float) -> None:
    model = Fused(CLASSES, DIM, Softmax(bias=False), seed=1).to(dtype)
    features, labels = batch()
    results = []
    rows = model.weight.detach().clone().requires_grad_()
    for loss_of in (
        lambda values: model(values, labels).loss,
        lambda values: functional.linear_cross_entropy(values, rows, labels),  # type: ignore[attr-defined]
    ):
        values = features.to(dtype, copy=True).requires_grad_()
        loss = loss_of(values)
        loss.backward()
        results.append((loss.detach(), gradient(values)))
    torch.testing.assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient(model.weight), gradient(rows), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["CosFace", "AdaM-Softmax", "UniFace", "Softmax", "CurricularFace"])
@pytest.mark.parametrize("centres", [1, 2])
def test_derivatives_are_those_of_differences(name: str, centres: int) -> None:
    head = head_of(name)
    head.eval()
    if centres > 1 and not head.normalised:
        pytest.skip("inner products have no nearest centre")
    model = Fused(CLASSES, DIM, head, seed=1, rows_per_class=centres).double().eval()
    features, labels = batch()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def loss(values: Tensor, *_: Tensor) -> Tensor:
        return model(values, labels).loss  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(loss, (features.requires_grad_(), *parameters), eps=1e-6, atol=1e-6, fast_mode=True)


def id_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Allocations(TorchDispatchMode):
    """Bytes of every new storage."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id_of(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = function(*args, **(kwargs or {}))
        new = (one for one in tree_leaves(result) if isinstance(one, Tensor) and id_of(one) not in known)
        self.sizes.extend(one.untyped_storage().nbytes() for one in new)
        return result


@pytest.mark.parametrize("name", ["CosFace", "CurricularFace", "NPCFace", "UniFace", "Softmax"])
@pytest.mark.parametrize("centres", [1, 2])
def test_nothing_is_as_large_as_the_logits_and_one_thing_as_large_as_the_rows(name: str, centres: int) -> None:
    size, classes, dim = 32, 3000, 64
    head = build(HEADS, name, num_classes=classes)
    if centres > 1 and not head.normalised:
        pytest.skip("inner products have no nearest centre")
    model = FullSoftmax(classes, dim, head, rows_per_class=centres)
    chunk = size * 40
    model.product = lambda features, candidates: FusedProduct(  # type: ignore[method-assign]
        features, candidates, head.normalised, chunk=chunk
    )
    features, labels = batch(classes, dim, size)
    values = features.float().requires_grad_()
    with Allocations() as allocations:
        model(values, labels).loss.backward()
    largest = sorted(allocations.sizes)[::-1]
    assert largest[0] == 4 * model.weight.numel()  # the gradient
    assert largest[1] <= 4 * max(chunk, classes * centres, size * dim * centres, size * size * centres**2 * 2)
    assert gradient(values).isfinite().all()


def test_a_head_of_many_classes_does_not_get_the_whole_matrix() -> None:
    model = FullSoftmax(LARGEST_WHOLE // 2048 + 1, 2, CosFace())
    candidates = model.candidates(torch.zeros(2048, 2), torch.zeros(2048, dtype=torch.int64))
    assert isinstance(model.product(torch.zeros(2048, 2), candidates), FusedProduct)
    assert isinstance(model.product(torch.zeros(2000, 2), candidates), WholeProduct)
    model.class_precision = "bf16"
    assert isinstance(model.product(torch.zeros(1, 2), candidates), FusedProduct)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["NPCFace", "SphereFace2"])
def test_candidates_that_are_excluded_or_stand_for_others(name: str, dtype: torch.dtype) -> None:
    features, labels = batch()
    generator = torch.Generator().manual_seed(3)
    excluded = torch.rand(BATCH, CLASSES, generator=generator) < 0.3
    excluded[torch.arange(BATCH), labels] = False
    excluded[0] = True  # nothing but its own class
    excluded[0, labels[0]] = False
    rows = torch.randn(CLASSES, DIM, generator=generator, dtype=dtype)
    weight = torch.full((CLASSES,), 3.0, dtype=dtype)
    candidates = Candidates(rows, labels, torch.ones(BATCH, dtype=torch.bool), weight=weight, excluded=excluded)
    results = []
    for make in (
        lambda values: WholeProduct(cosines(values, rows), candidates),
        lambda values: FusedProduct(values, candidates, True, chunk=BATCH),  # a chunk of one class
    ):
        values = features.to(dtype, copy=True).requires_grad_()
        output = MarginLoss(head_of(name), CLASSES)(values, labels, candidates, make(values))
        output.loss.backward()
        results.append((output.loss.detach(), gradient(values), dict(output.metrics)))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)


def test_rows_of_zeros_have_a_finite_gradient() -> None:
    model = Fused(CLASSES, DIM, CosFace())
    model.weight.data[::2] = 0.0
    features, labels = batch()
    values = features.float()
    values[0] = 0.0
    values.requires_grad_()
    model(values, labels).loss.backward()
    assert bool(gradient(values).isfinite().all())
    assert bool(gradient(model.weight).isfinite().all())


def test_rows_that_moved_before_the_backward_pass_are_noticed() -> None:
    model = Fused(CLASSES, DIM, CosFace()).double()
    loss = model(*batch()).loss
    with torch.no_grad():
        model.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_the_gradient_of_the_rows_is_not_copied() -> None:
    model = Fused(CLASSES, DIM, CosFace()).double()
    made: list[int] = []
    model.weight.register_hook(lambda one: made.append(one.data_ptr()))
    model(*batch()).loss.backward()
    assert made == [gradient(model.weight).data_ptr()]


def test_gradients_accumulate_and_a_graph_can_be_kept() -> None:
    model = Fused(CLASSES, DIM, CosFace()).double()
    features, labels = batch()
    loss = model(features, labels).loss
    loss.backward(retain_graph=True)
    once = gradient(model.weight).clone()
    loss.backward()
    torch.testing.assert_close(gradient(model.weight), 2 * once)


def test_bf16_rounds_factors_and_not_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 512, generator=generator)
    labels = torch.arange(64)
    losses, gradients = [], []
    for precision in ("fp32", "bf16"):
        model = Fused(500, 512, CosFace(), seed=1)
        model.class_precision = precision  # type: ignore[assignment]
        output = model(features, labels)
        output.loss.backward()
        losses.append(output.loss.detach())
        gradients.append(gradient(model.weight))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0.0)
    assert float(normalize(gradients[0].flatten(), dim=0) @ normalize(gradients[1].flatten(), dim=0)) > 0.9999
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"  # type: ignore[attr-defined]


def test_float64_stays_float64() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        model = Fused(CLASSES, DIM, CosFace(), seed=1).double()
        model.class_precision = precision  # type: ignore[assignment]
        losses.append(model(*batch()).loss)
    assert losses[0].equal(losses[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_has_this_precision(precision: ClassPrecision) -> None:
    check_class_precision(precision, torch.device("cpu"))


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(
        ConfigError, match=r"training.class_precision is 'tf32', a format of NVIDIA's GPUs, but the class"
    ):
        check_class_precision("tf32", torch.device("cpu"))


def test_sums_over_two_banks_of_rows_are_added_in_one_logarithm() -> None:
    """LVFace's PCO: learned rows with one margin, means of features with another."""
    features, labels = batch()
    learned, means = CosFace(margin=0.4, scale=16.0), CosFace(margin=0.2, scale=16.0)
    model = FullSoftmax(CLASSES, DIM, learned, seed=1).double()
    bank = FullSoftmax(CLASSES, DIM, means, seed=2).double().requires_grad_(False)
    features.requires_grad_()
    loss = MarginLoss(learned, CLASSES)
    parts = []
    for owner in (model, bank):
        candidates = owner.candidates(features.detach(), labels)
        product = owner.product(features, candidates)
        parts.append(MarginLoss(owner.head, CLASSES).parts(features, labels, candidates, product))
    output = loss.output(loss.entropy(*parts), parts[0], model.candidates(features.detach(), labels))
    output.loss.backward()
    found, rows = gradient(features).clone(), gradient(model.weight).clone()

    features.grad = model.weight.grad = None
    total = torch.ones(BATCH, dtype=torch.float64)
    for owner, margin in ((model, 0.4), (bank, 0.2)):
        cosine = normalize(features) @ normalize(owner.weight).T
        own = cosine.gather(1, labels[:, None]) - margin
        others = (16.0 * (cosine - own)).exp().scatter(1, labels[:, None], 0.0)
        total = total + others.sum(dim=1)
    expected = total.log().mean()
    expected.backward()
    torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, gradient(features), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows, gradient(model.weight), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["CosFace", "UniFace"])
@pytest.mark.parametrize("skip", [1e-6, 1e-3, 0.3])
def test_chunks_that_are_skipped_lack_no_more_than_was_said(name: str, skip: float) -> None:
    """Rows of all distances to the batch, so that some chunks hold nearly nothing of the softmax."""
    head = head_of(name)
    features, labels = batch()
    rows = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rows = normalize(rows)
    rows[4:] -= (
        1.5 * torch.linspace(0, 1, CLASSES - 4, dtype=torch.float64)[:, None] * normalize(features.sum(0), dim=0)
    )
    labels = labels % 4
    unit = normalize(features)
    results = []
    for share in (0.0, skip):
        weight, values = rows.clone().requires_grad_(), unit.clone().requires_grad_()
        candidates = Candidates(weight, labels, torch.ones(BATCH, dtype=torch.bool))
        product = FusedProduct(values, candidates, True, chunk=2 * BATCH, skip=share)
        product.features = values  # its gradient is what the bound is about
        terms = head.prepare(product.target().detach(), values.norm(dim=1).detach(), labels)
        total = product.over_negatives(head, terms, Nearest())
        slope = torch.linspace(0.1, 1.0, BATCH, dtype=torch.float64)
        total.backward(slope)
        results.append((total.detach(), gradient(values), gradient(weight)))
    (total, of_values, of_rows), (same, fewer, of_fewer) = results
    assert same.equal(total)
    bound = skip * float(slope.max()) * head.scale
    assert float((of_values - fewer).norm(dim=1).max()) <= bound
    missing = ((of_rows - of_fewer) * rows.norm(dim=1, keepdim=True)).norm(dim=1)
    assert float(missing.sum()) <= bound * BATCH
    untouched = ~of_fewer.any(dim=1)
    assert bool(untouched.any()) == bool(missing.any())
    if name == "CosFace" and skip >= 1e-3:
        assert bool(untouched.any())


def test_settings_reach_the_classifier() -> None:
    words = ("training.class_precision=bf16", "training.class_skip=0.01", "head=CosFace")
    (owner,) = assemble(load_config(TINY, words)).mode.row_owners().values()
    assert (owner.class_precision, owner.class_skip) == ("bf16", 0.01)
    with pytest.raises(ConfigError, match="class_precision is 'tf32', a format of NVIDIA's GPUs"):
        assemble(load_config(TINY, ("training.class_precision=tf32", "training.device=cpu")))


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 5e-3), ("bf16", 2e-2)])
@pytest.mark.parametrize("name", ["CosFace", "CurricularFace"])  # that leave the negatives as they are, and do not
def test_a_gpu_gives_the_same(name: str, precision: ClassPrecision, tolerance: float, gpu: torch.device) -> None:
    embedding, labels = batch(CLASSES, 64)

    def run(device: torch.device, dtype: torch.dtype, precision: ClassPrecision) -> list[Tensor]:
        model = Fused(CLASSES, 64, head_of(name), seed=1).to(device, dtype)
        model.class_precision = precision
        features = embedding.detach().to(device, dtype).requires_grad_()
        loss = model(features, labels.to(device)).loss
        loss.backward()
        return [given.detach().cpu().double() for given in (loss, gradient(features), gradient(model.weight))]

    wanted = run(torch.device("cpu"), torch.float64, "fp32")
    for one, other in zip(run(gpu, torch.float32, precision), wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < tolerance
