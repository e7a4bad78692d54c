"""The full softmax: cross entropy by hand, metrics, first rows, what the checkpoint needs, refusals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from facelab import distributed
from facelab.catalogue import build
from facelab.errors import ConfigError, DataError
from facelab.head.base import HEADS, ClassShard, MarginHead
from facelab.head.classifier import CLASSIFIERS
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.class_pool import ClassPool
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.rows.initial import BLOCK, Initial, initial_rows

FEATURES = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]])
ROWS = torch.tensor([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0]])
LABELS = torch.tensor([0, 1, 2])


def with_rows(head: MarginHead) -> FullSoftmax:
    classifier = FullSoftmax(num_classes=3, feat_dim=2, head=head)
    classifier.weight.data.copy_(ROWS)
    return classifier


def test_loss_is_the_cross_entropy_of_scaled_cosines_with_margin() -> None:
    logits = 8.0 * (normalize(FEATURES) @ normalize(ROWS).T - 0.2 * torch.eye(3))
    loss = with_rows(CosFace(margin=0.2, scale=8.0))(FEATURES, LABELS).loss
    torch.testing.assert_close(loss, cross_entropy(logits, LABELS))


def test_plain_softmax_is_a_linear_layer_with_bias() -> None:
    classifier = with_rows(Softmax())
    assert classifier.class_bias is not None
    classifier.class_bias.data.copy_(torch.tensor([0.5, -0.5, 1.0]))
    output = classifier(FEATURES, LABELS)
    logits = nn.functional.linear(FEATURES, ROWS, classifier.class_bias)
    torch.testing.assert_close(output.loss, cross_entropy(logits, LABELS))
    cosines = [0.6, 1.0, -math.sqrt(0.5)]
    assert float(output.metrics["target_cosine"]) == pytest.approx(sum(cosines) / 3)


def test_metrics() -> None:
    metrics = with_rows(CosFace(margin=0.2, scale=8.0))(FEATURES, LABELS).metrics
    assert float(metrics["accuracy"]) == pytest.approx(1 / 3)  # the first is nearer to class 2, the last to class 1
    assert float(metrics["target_cosine"]) == pytest.approx((0.6 + 1.0 - math.sqrt(0.5)) / 3)
    assert float(metrics["norm"]) == pytest.approx((5 + 2 + 1) / 3)
    assert float(metrics["regularizer"]) == 0.0


def test_what_has_no_direction_has_a_cosine_of_0_in_the_metrics_of_inner_products() -> None:
    classifier = with_rows(Softmax())
    classifier.weight.data[1] = 0.0
    metrics = classifier(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1, 0])).metrics
    assert float(metrics["target_cosine"]) == pytest.approx(float(normalize(ROWS)[0, 0]) / 3)


def test_a_small_loss_keeps_its_digits() -> None:
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    classifier = FullSoftmax(2, 2, CosFace(margin=0.0, scale=20.0))
    classifier.weight.data.copy_(rows)
    loss = classifier(rows, torch.tensor([0, 1])).loss
    assert float(loss.detach()) == pytest.approx(math.exp(-40.0), rel=1e-4)  # 1 + exp(-40) is 1 in fp32


def test_a_zero_embedding_has_a_finite_gradient() -> None:
    features = torch.zeros(2, 2, requires_grad=True)
    with_rows(CosFace())(features, torch.tensor([0, 2])).loss.backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_precision_follows_the_rows() -> None:
    assert with_rows(CosFace())(FEATURES.bfloat16(), LABELS).loss.dtype == torch.float32
    assert with_rows(CosFace()).double()(FEATURES, LABELS).loss.dtype == torch.float64


@pytest.mark.parametrize("head", [CosFace(), Softmax()])
def test_row_tensors_are_in_the_state_dict_and_cover_the_range(head: MarginHead) -> None:
    classifier = with_rows(head)
    start, stop = classifier.row_range
    rows, state = classifier.row_tensors(), classifier.state_dict()
    assert (start, stop) == (0, 3)
    assert all(tensor.shape[0] == stop - start and state[name].equal(tensor) for name, tensor in rows.items())
    assert ("class_bias" in rows) == head.bias
    assert {id(tensor) for tensor in rows.values()} == {id(parameter) for parameter in classifier.parameters()}


@pytest.mark.parametrize("cut", [1, BLOCK - 1, BLOCK, BLOCK + 7])
def test_first_rows_do_not_depend_on_the_shards(cut: int) -> None:
    total = BLOCK + 10
    whole = initial_rows(ClassShard(0, total), 3, "unit", 0.01, seed=4)
    parts = [initial_rows(ClassShard(*ends), 3, "unit", 0.01, seed=4) for ends in ((0, cut), (cut, total))]
    assert torch.cat(parts).equal(whole)
    assert not whole[:10].equal(whole[BLOCK:])
    assert not whole.equal(initial_rows(ClassShard(0, total), 3, "unit", 0.01, seed=5))


@pytest.mark.parametrize("initial", ["normal", "unit"])
def test_a_seed_means_these_rows(initial: Initial) -> None:
    """Another order of the random numbers would train another network from an old configuration."""
    rows = initial_rows(ClassShard(1, 1026), 300, initial, 0.5, seed=4)
    for block, part in ((0, rows[:1023]), (1, rows[1023:])):
        drawn = np.random.default_rng((4, block)).random((2, 512, 300), dtype=np.float32).astype(np.float64)
        radius, angle = np.sqrt(-2.0 * np.log1p(-drawn[0])), 2.0 * np.pi * drawn[1]
        normal = torch.from_numpy(np.concatenate([radius * np.sin(angle), radius * np.cos(angle)])).float()
        stream = normal[1:] if block == 0 else normal[:2]
        torch.testing.assert_close(part, 0.5 * stream if initial == "normal" else normalize(stream))


def test_first_rows_have_the_spread_that_was_asked_for() -> None:
    unit = initial_rows(ClassShard(0, 500), 64, "unit", 0.01, seed=0)
    normal = initial_rows(ClassShard(0, 500), 64, "normal", 0.02, seed=0)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(500))
    assert float(unit.mean(dim=0).norm()) < 0.1
    assert float(normal.std()) == pytest.approx(0.02, rel=0.02)
    ordered = (normal.double() / 0.02).flatten().sort().values
    normal_share = torch.special.ndtr(ordered)
    assert float((normal_share - torch.linspace(0.0, 1.0, 32000)).abs().max()) < 0.009  # Kolmogorov, 1 in 100
    assert float(torch.corrcoef(normal.T).fill_diagonal_(0.0).abs().max()) < 0.2


def test_shard_says_where_targets_stand() -> None:
    column, owned = ClassShard(3, 6).columns(torch.tensor([2, 3, 5, 6]))
    assert owned.tolist() == [False, True, True, False]
    assert column[owned].tolist() == [0, 2]
    assert bool(((column >= 0) & (column < 3)).all())


@pytest.mark.parametrize(("labels", "wrong"), [([0, 1, 3], 3), ([-1, 0, 1], -1)])
def test_labels_outside_are_refused(labels: list[int], wrong: int) -> None:
    with pytest.raises(DataError, match=rf"label {wrong} is outside of 0\.\.2, the classes of this classifier"):
        with_rows(CosFace())(FEATURES, torch.tensor(labels))


def test_labels_outside_make_the_loss_nan_where_they_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullSoftmax, "_check_labels", lambda self, labels: None)  # as on a GPU
    assert bool(with_rows(CosFace())(FEATURES, torch.tensor([0, 1, 3])).loss.isnan())


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="FullSoftmax rows_per_class is 2, but Softmax takes inner products"):
        FullSoftmax(3, 2, Softmax(), rows_per_class=2)
    with pytest.raises(ConfigError, match=r"FullSoftmax num_classes is 1, but must lie in \[2, inf\]"):
        FullSoftmax(1, 2, CosFace())
    with pytest.raises(ConfigError, match="FullSoftmax deviation is 0.0"):
        FullSoftmax(3, 2, CosFace(), deviation=0.0)


def test_the_registry_builds_it_from_yaml_and_from_what_the_program_knows() -> None:
    options = {"initial": "normal"}
    classifier = CLASSIFIERS.build("FullSoftmax", options, num_classes=3, feat_dim=2, head=CosFace(), seed=7)
    assert classifier.num_classes == 3
    with pytest.raises(ConfigError, match="classifier 'FullSoftmax' option 'initial' is 'zeros'"):
        CLASSIFIERS.build("FullSoftmax", {"initial": "zeros"}, num_classes=3, feat_dim=2, head=CosFace())


def test_inputs_are_left_as_they_are() -> None:
    features, labels = FEATURES.clone(), LABELS.clone()
    with_rows(CosFace())(features, labels)
    assert features.equal(FEATURES)
    assert labels.equal(LABELS)


def test_gradient_of_a_row_is_that_of_the_mean_loss() -> None:
    classifier = with_rows(CosFace(margin=0.2, scale=8.0))
    rows = ROWS.clone().requires_grad_()
    logits = 8.0 * (normalize(FEATURES) @ normalize(rows).T - 0.2 * torch.eye(3))
    classifier(FEATURES, LABELS).loss.backward()
    expected: Tensor = torch.autograd.grad(cross_entropy(logits, LABELS), rows)[0]
    torch.testing.assert_close(classifier.weight.grad, expected)


@pytest.mark.parametrize("name", ["ArcFace", "AdaFace", "Softmax", "NormFace", "UniFace"])
def test_one_matrix_of_logits_is_kept_for_the_backward_pass(name: str) -> None:
    batch, classes, dim = 16, 256, 4
    head = build(HEADS, name, num_classes=classes, feat_dim=dim)
    classifier = FullSoftmax(classes, dim, head)
    features = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept: dict[int, Tensor] = {}  # by storage: a view of what is kept already costs nothing

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= batch * classes:
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = classifier(features, torch.arange(batch)).loss
    sizes = [tensor.numel() * tensor.element_size() for tensor in kept.values()]
    assert sizes == [4 * batch * classes]
    loss.backward()
    assert features.grad is not None
    assert bool(features.grad.abs().sum() > 0)


def test_classes_are_not_shared_by_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    assert ClassShard.of_this_process(3).size == 1
    with pytest.raises(
        ConfigError, match="there are 2 classes for 3 processes, and each owns at least one; start fewer"
    ):
        ClassShard.of_this_process(2)
    with pytest.raises(ConfigError, match="there are 2 classes for 3 processes"):
        FullSoftmax(2, 4, CosFace())
    with pytest.raises(ConfigError, match="there are 2 slots of ClassPool for 3 processes"):
        ClassPool(20, 4, CosFace(), fraction=0.1)
