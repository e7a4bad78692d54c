"""Every head of the catalogue: builds, learns, is exact, finite, safe under autocast and kept in checkpoints."""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.catalogue import build, entries
from facelab.citation import Citation
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.rows.full_softmax import FullSoftmax

ENTRIES = sorted({*entries(HEADS), *HEADS.names()})  # with those of other packages that are installed
OURS = [name for name in HEADS.names() if HEADS.get(name).__module__.startswith("facelab.")]
BATCH, DIM, CLASSES = 8, 6, 7
# Their papers leave a part out of the gradient; golden data or values by hand tell it.
DETACHED = (
    *("InsightFace-ArcFace", "CircleLoss", "ArcNegFace", "NPCFace"),
    *("SphereFace2", "SphereFace2-A", "SphereFace2-M", "SphereFace-R"),
)


def classifier(name: str, dtype: torch.dtype = torch.float32) -> FullSoftmax:
    return FullSoftmax(CLASSES, DIM, build(HEADS, name, num_classes=CLASSES), seed=3).to(dtype)


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Features with norms from 6 to 41 and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64))
    return (directions * torch.linspace(6, 41, BATCH, dtype=torch.float64)[:, None]).to(dtype), labels


def test_every_registered_head_is_in_the_catalogue() -> None:
    assert set(OURS) <= {registered for registered, _ in entries(HEADS).values()}
    assert set(OURS) <= set(entries(HEADS))


@pytest.mark.parametrize("name", OURS)
def test_catalogue_entry_of_a_head_states_its_defaults(name: str) -> None:
    _, options = entries(HEADS)[name]
    parameters = HEADS.parameters(name)
    assert {key: parameters[key].default for key in options} == options


@pytest.mark.parametrize("name", OURS)
def test_head_of_ours_has_a_citation(name: str) -> None:
    assert isinstance(HEADS.get(name).citation, Citation)


@pytest.mark.parametrize("name", HEADS.names())
def test_head_documents_its_options(name: str) -> None:
    text = inspect.getdoc(HEADS.get(name)) or ""
    assert [option for option in HEADS.parameters(name) if f"    {option}: " not in text] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_forward_and_backward(name: str) -> None:
    model = classifier(name)
    features, labels = batch()
    features.requires_grad_()
    output = model(features, labels)
    output.loss.backward()
    assert output.loss.shape == ()
    assert {"accuracy", "target_cosine", "norm"} <= set(output.metrics)
    assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())
    for parameter in (features, *model.parameters()):
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
        assert bool(parameter.grad.any())


@pytest.mark.cuda
@pytest.mark.parametrize("name", ENTRIES)
def test_a_gpu_gives_the_same(name: str, gpu: torch.device) -> None:
    """Two steps, so that what heads remember of the first one counts."""

    def run(device: torch.device) -> list[Tensor]:
        model, found = classifier(name, torch.float64).to(device), []
        for seed in range(2):
            features, labels = (given.to(device) for given in batch(seed, torch.float64))
            model.zero_grad()
            output = model(features.requires_grad_(), labels)
            output.loss.backward()
            found += [output.loss, *output.metrics.values()]
            found += [one.grad for one in (features, *model.parameters()) if one.grad is not None]
        return [one.detach().cpu() for one in (*found, *model.buffers())]

    for found, wanted in zip(run(gpu), run(torch.device("cpu")), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in DETACHED])
def test_gradients_are_exact(name: str) -> None:
    model = classifier(name, torch.float64).eval()  # in evaluation no buffer moves between the evaluations
    features, labels = batch(dtype=torch.float64)
    inputs = (features.requires_grad_(), model.weight)
    if model.head.uses_norm and name.startswith("AdaFace"):
        # The norm carries no gradient by design: compare in the directions that leave it alone.
        check_directional(model, features, labels)
    else:
        assert torch.autograd.gradcheck(lambda x, w: functional(model, x, w, labels), inputs, atol=1e-6, rtol=1e-6)


def functional(model: FullSoftmax, features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    output = torch.func.functional_call(model, {"weight": weight}, (features, labels))
    loss: Tensor = output.loss
    return loss


def check_directional(model: FullSoftmax, features: Tensor, labels: Tensor) -> None:
    def loss_of(directions: Tensor, weight: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(directions)
        return functional(model, unit * lengths, weight, labels)

    lengths = features.detach().norm(dim=1, keepdim=True)
    assert torch.autograd.gradcheck(loss_of, (features, model.weight), atol=1e-6, rtol=1e-6)


def test_straight_through_gradient_is_that_of_the_scaled_cosine() -> None:
    exact, through = classifier("ArcFace", torch.float64), classifier("ArcFace", torch.float64)
    through.head = build(HEADS, {"ArcFace": {"gradient": "straight_through"}})
    features, labels = batch(dtype=torch.float64)
    losses = [float(model(features, labels).loss.detach()) for model in (exact, through)]
    assert losses[0] == pytest.approx(losses[1])
    target = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    terms = through.head.prepare(target, target.detach(), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(through.head.positive(target, terms), target)
    assert float(gradient) == 1.0


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_gradients_are_finite_where_a_cosine_is_one(name: str, sign: float, autocast: torch.dtype | None) -> None:
    model = classifier(name)
    rows = torch.nn.functional.normalize(torch.eye(CLASSES, DIM) + 1e-3)
    model.weight.data.copy_(rows)
    features = (sign * 20 * rows[:DIM]).to(autocast or torch.float32).requires_grad_()
    own, other = torch.arange(DIM), (torch.arange(DIM) + 1) % DIM
    for labels in (own, other):  # the cosine of 1 or -1 is that of the target, then that of another class
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            output = model(features, labels)
        output.loss.backward()
    assert features.grad is not None
    assert model.weight.grad is not None
    assert bool(features.grad.isfinite().all())
    assert bool(model.weight.grad.isfinite().all())


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_computed_in_full_precision(name: str, dtype: torch.dtype) -> None:
    model, plain = classifier(name), classifier(name)
    features, labels = batch()
    halves = features.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        output = model(halves, labels)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert halves.grad is not None
    assert bool(halves.grad.isfinite().all())
    assert output.loss.equal(plain(features.to(dtype).float(), labels).loss)


@pytest.mark.parametrize("name", ENTRIES)
def test_state_goes_round_through_a_state_dict(name: str) -> None:
    model, other = classifier(name), FullSoftmax(CLASSES, DIM, build(HEADS, name, num_classes=CLASSES), seed=2)
    model(*batch(0))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    features, labels = batch(1)
    assert model(features, labels).loss.equal(other(features, labels).loss)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_training_moves_lives_in_buffers(name: str) -> None:
    """Whatever else a head remembered, checkpoints and other processes would not know."""
    head = build(HEADS, name, num_classes=CLASSES)
    before = {key: copy.deepcopy(value) for key, value in vars(head).items() if not key.startswith("_")}
    model = FullSoftmax(CLASSES, DIM, head, seed=1)
    for step in range(2):
        model(*batch(step))
    assert {key: value for key, value in vars(head).items() if not key.startswith("_")} == before


@pytest.mark.parametrize("name", ENTRIES)
def test_evaluation_moves_no_state(name: str) -> None:
    model = classifier(name).eval()
    before = copy.deepcopy(model.state_dict())
    model(*batch())
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ENTRIES)
def test_a_small_network_learns(name: str) -> None:
    torch.manual_seed(0)
    centres = 20 * torch.nn.functional.normalize(torch.randn(CLASSES, DIM))
    labels = torch.arange(4 * CLASSES) % CLASSES
    samples = centres[labels] + torch.randn(len(labels), DIM)
    network, model = torch.nn.Linear(DIM, DIM), classifier(name)
    torch.nn.init.eye_(network.weight)
    optimizer = torch.optim.Adam([*network.parameters(), *model.parameters()], lr=0.05)
    losses, accuracies = [], []
    for _ in range(60):
        output = model(network(samples), labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
        accuracies.append(float(output.metrics["accuracy"]))
    assert losses[-1] < 0.5 * losses[0]
    assert accuracies[0] < 0.6
    # The filter takes classes that are near each other at the start for wrong labels, and never separates them.
    assert accuracies[-1] >= (0.7 if name.endswith("Filter") else 1.0)


REFUSED = [
    ({"Arcface": {}}, "unknown head 'Arcface'. Did you mean 'ArcFace'"),
    ({"ArcFace": {"marginarc": 0.5}}, "head 'ArcFace' has no option 'marginarc'. Did you mean 'margin'"),
    ({"ArcFace": {"margin": 1.6}}, r"ArcFace margin is 1.6, but must lie in \[0, 1.5708\)"),
    ({"ArcFace": {"margin": "wide"}}, "head 'ArcFace' option 'margin' is 'wide'"),
    ({"ArcFace": {"boundary": "linaer"}}, "head 'ArcFace' option 'boundary' is 'linaer'"),
    ({"ArcFace": {"boundary_margin": 0.2}}, "ArcFace boundary_margin needs boundary 'constant'"),
    ({"ArcFace": {"scale": 0}}, r"ArcFace scale is 0.0, but must lie in \(0, inf\)"),
    ({"CosFace": {"margin": -0.1}}, r"CosFace margin is -0.1, but must lie in \[0, 1\]"),
    ({"CombinedMargin": {"m1": 0}}, r"CombinedMargin m1 is 0.0, but must lie in \(0, 5\]"),
    ({"CombinedMargin": {"filter_threshold": 2}}, "CombinedMargin filter_threshold is 2.0"),
    ({"MagFace": {"lower_norm": 0}}, "MagFace lower_norm is 0.0"),
    ({"MagFace": {"upper_norm": 5}}, r"MagFace upper_norm is 5.0, but must lie in \(10, inf\)"),
    ({"MagFace": {"upper_margin": 0.2}}, "MagFace upper_margin is 0.2, but must not be less than lower_margin, 0.45"),
    ({"MagCosFace": {"upper_margin": 1.0}}, "MagCosFace upper_margin is 1.0"),
    ({"AdaFace": {"momentum": 0}}, r"AdaFace momentum is 0.0, but must lie in \(0, 1\]"),
    ({"CurricularFace": {"momentum": 2}}, "CurricularFace momentum is 2.0"),
    ({"MV-Softmax": {"variant": "cos"}}, "head 'MV-Softmax' option 'variant' is 'cos'"),
    ({"MV-Softmax": {"margin": 1.1}}, r"MV-Softmax margin is 1.1, but must lie in \[0, 1\]"),
    ({"MV-Softmax": {"mv_weight": 0.9}}, "MV-Softmax mv_weight is 0.9"),
    ({"NPCFace": {"m1": 0.5}}, r"NPCFace m1 is 0.5, but must lie in \[0, 0.4\]"),
    ({"ArcNegFace": {"sigma": 0}}, "ArcNegFace sigma is 0.0"),
    ({"CircleLoss": {"gamma": 0}}, "CircleLoss gamma is 0.0"),
    ({"SphereFace": {"margin": 0.5}}, r"SphereFace margin is 0.5, but must lie in \[1, 5\]"),
    ({"SphereFace": {"largest_lambda": 1}}, r"SphereFace largest_lambda is 1.0, but must lie in \[5, inf\)"),
    ({"SphereFace2": {"balance": 1}}, r"SphereFace2 balance is 1.0, but must lie in \(0, 1\)"),
    ({"SphereFace2": {"variant": "B"}}, "head 'SphereFace2' option 'variant' is 'B'"),
    ({"SphereFace2": {"variant": "M"}}, r"SphereFace2 margin is 0.4, but must lie in \[1, 5\]"),
    ({"SphereFace-R": {"margin": 0.9}}, r"SphereFaceR margin is 0.9, but must lie in \[1, 5\]"),
    ({"ElasticFace": {"variant": "cos", "boundary": "none"}}, "ElasticFace boundary is 'none', but a cosine margin"),
    ({"ElasticFace": {"plus": "unsorted"}}, "head 'ElasticFace' option 'plus' is 'unsorted'"),
    ({"UniFace": {"negative_weight": 0}}, "UniFace negative_weight is 0.0"),
    ({"AdaM-Softmax": {"regularization": -1}}, "AdaM-Softmax regularization is -1.0"),
    ({"X2-Softmax": {"h": 0.1}}, "X2-Softmax h is 0.1"),
    ({"X2-Softmax": {"a": 0}}, "X2-Softmax a is 0.0"),
    ({"ElasticFace": {"deviation": -0.1}}, "ElasticFace deviation is -0.1"),
    ({"AdaCos": {}}, "head 'AdaCos' needs the option 'num_classes'"),
    ({"AdaCos": {"num_classes": 2}}, "AdaCos num_classes is 2"),
    ({"Softmax": {"scale": 32}}, "Softmax scale is 32.0, but inner products have none; set normalise: true"),
    ({"Softmax": {"normalise": True, "bias": True}}, "Softmax has no bias with normalise: true"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_refusals(spec: dict[str, Any], message: str) -> None:
    ((name, options),) = spec.items()
    with pytest.raises(ConfigError, match=message):
        HEADS.build(name, options, **({} if name == "AdaCos" else {"num_classes": CLASSES}))


def test_a_head_of_one_method_is_enough() -> None:
    class Squared(MarginHead):
        def positive(self, target: Tensor, terms: Any) -> Tensor:
            return target - target.square()

    loss = FullSoftmax(CLASSES, DIM, Squared(scale=8.0))(*batch()).loss
    assert bool(loss.isfinite())


def test_statistics_are_taken_over_negatives_only() -> None:
    class Counting(MarginHead):
        def statistics(self, cosine: Tensor, terms: Any, negative: Tensor) -> Mapping[str, Tensor]:
            return {"count": negative.sum(dim=1)}

        def regularizer(self, terms: Any) -> Tensor:
            assert terms.statistics["count"].tolist() == [CLASSES - 1] * BATCH
            return super().regularizer(terms)

    FullSoftmax(CLASSES, DIM, Counting(scale=8.0))(*batch())


def test_heads_with_a_second_walk_are_named_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "heads.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| 2: logits depend on a sum"))
    ours = [name for name in HEADS.names() if HEADS.get(name).__module__.startswith("facelab.head.")]
    walking = [name for name in ours if HEADS.get(name).statistics is not MarginHead.statistics]
    assert row.split("|")[2].strip() == ", ".join(sorted(walking))
