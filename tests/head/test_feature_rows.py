"""Stored features as class rows: what pool and queue compare with, what they keep, what they refuse, and processes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from facelab import distributed
from facelab.catalogue import build, entries
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.classifier import CLASSIFIERS
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.class_pool import ClassPool
from facelab.head.rows.feature_rows import FeatureRows
from facelab.head.rows.prototype_queue import PrototypeQueue

PEOPLE, DIM, BATCH = 60, 6, 8
OWNERS: dict[str, dict[str, Any]] = {"ClassPool": {"fraction": 0.2}, "PrototypeQueue": {"size": 19}}
LEARNED = {"Softmax", "AdaM-Softmax", "SphereFace2", "UniFace"}  # a number for each class, or inner products

every_owner = pytest.mark.parametrize("name", OWNERS)


def head_of(name: str) -> MarginHead:
    return build(HEADS, name, num_classes=PEOPLE)


def owner_of(name: str, head: MarginHead | None = None, **options: Any) -> Any:
    spec = {name: {**OWNERS[name], **options}}
    given = {"num_classes": PEOPLE, "feat_dim": DIM, "head": head or CosFace(0.2, 8.0), "seed": 1}
    return build(CLASSIFIERS, spec, **given).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, DIM, generator=generator).double(), torch.randint(20, (BATCH,), generator=generator)


@pytest.mark.parametrize("excluded", [True, False])
def test_a_queue_goes_round_in_any_size_and_older_features_of_a_person_are_no_negatives_unless_asked(
    excluded: bool,
) -> None:
    queue: PrototypeQueue = owner_of("PrototypeQueue", exclude_same_person=excluded)
    random = queue.rows.clone()
    rows, people = [], []
    for number in range(5):  # 40 features in 19 places
        (features, labels), (gallery, _) = batch(number), batch(100 + number)
        queue.offer(gallery, labels, keep=True)
        loss = queue(features, labels).loss
        rows.append(normalize(gallery))
        people.append(labels)
        queue.after_update()
        held = torch.cat([random, *rows])[-19:]
        of = torch.cat([torch.full((19,), -1), *people])[-19:]
        target = torch.arange(19 - BATCH, 19)
        cosine = normalize(features) @ held.T
        own = torch.zeros(BATCH, 19, dtype=torch.bool)
        own[torch.arange(BATCH), target] = True
        logits = 8.0 * (cosine - 0.2 * own)
        logits = logits.masked_fill((of == labels[:, None]) & ~own & excluded, -torch.inf)
        torch.testing.assert_close(loss, cross_entropy(logits, target))
    assert int(queue.next) == 40 % 19


@every_owner
def test_what_is_not_kept_leaves_nothing_behind(name: str) -> None:
    owner: FeatureRows = owner_of(name)
    before = {key: value.clone() for key, value in owner.state_dict().items()}
    features, labels = batch(0)
    owner.offer(features, labels)
    owner(features, labels)
    owner.after_update()
    assert [key for key, value in owner.state_dict().items() if not value.equal(before[key])] == []


@every_owner
def test_all_that_is_to_be_kept_is_stored_in_its_order(name: str) -> None:
    """As with several passes for an update."""
    together, apart = owner_of(name), owner_of(name)
    for number in range(3):
        features, labels = batch(number)
        for owner in (together, apart):
            owner.offer(features, labels, keep=True)
        apart.after_update()
    together.after_update()
    assert all(value.equal(apart.state_dict()[key]) for key, value in together.state_dict().items())


@every_owner
@pytest.mark.parametrize("head", sorted({*entries(HEADS), *HEADS.names()} - LEARNED))
def test_every_head_without_numbers_of_classes_learns_from_it(name: str, head: str) -> None:
    owner: FeatureRows = owner_of(name, head_of(head))
    for number in range(2):
        features, labels = batch(number)
        features.requires_grad_()
        owner.offer(batch(100 + number)[0], batch(7)[1] if name == "ClassPool" else labels, keep=True)
        owner(features, labels).loss.backward()
        owner.after_update()
        assert features.grad is not None
        assert bool(features.grad.isfinite().all())
        assert bool(features.grad.any())


@every_owner
@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("Softmax", "keeps no learned numbers, but Softmax learns a bias"),
        ("AdaM-Softmax", "keeps no learned numbers, but AdaMSoftmax learns a margin"),
    ],
)
def test_heads_that_learn_numbers_of_classes_are_refused(name: str, head: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} {said}"):
        owner_of(name, head_of(head))


@every_owner
def test_inner_products_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} keeps directions, but Softmax takes inner products; .*normalise"):
        owner_of(name, Softmax(bias=False))


@every_owner
def test_without_a_gallery_network_it_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} compares with features of a gallery .*semi_siamese or class_pool"):
        owner_of(name)(*batch(0))


@every_owner
def test_a_batch_larger_than_the_store_is_refused(name: str) -> None:
    owner = owner_of(name, **({"fraction": 0.05} if name == "ClassPool" else {"size": 3}))
    with pytest.raises(ConfigError, match=f"{name} has room for 3 features, but a batch brings those of 8 images"):
        owner.offer(*batch(0))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("ClassPool", "fraction", 0.0), ("ClassPool", "fraction", 1.01), ("PrototypeQueue", "size", 0)],
)
def test_sizes_out_of_range_are_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} {option} "):
        owner_of(name, **{option: value})


@pytest.mark.parametrize(("name", "size"), [("PrototypeQueue", 10**13), ("PrototypeMemory", 10**9 + 1)])
def test_more_slots_than_have_numbers_are_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"{name} size is {size}, but must lie in \[1, 1e\+09\]"):
        build(CLASSIFIERS, {name: {"size": size}}, num_classes=PEOPLE, feat_dim=DIM, head=CosFace())


@pytest.mark.parametrize("name", [*OWNERS, "PrototypeMemory"])
def test_a_store_that_memory_does_not_hold_is_named_by_its_option(name: str) -> None:
    option = {"fraction": 1.0} if name == "ClassPool" else {"size": 10**9}
    said = rf"{name} keeps .* GB in {10**9} slots .* lower classifier\.{name}\.{next(iter(option))}, or"
    with pytest.raises(ConfigError, match=said):
        build(CLASSIFIERS, {name: option}, num_classes=10**9, feat_dim=2**20, head=CosFace())


def test_nobody_in_the_pool_leaves_the_cosine_loss_alone() -> None:
    pool: ClassPool = owner_of("ClassPool")
    features, _ = batch(0)
    features.requires_grad_()
    pool.offer(batch(1)[0], torch.arange(8))
    output = pool(features, torch.arange(30, 38))
    rows, _ = pool._templates(pool.offered, pool.table.place(torch.arange(8)))
    nearest = (normalize(features) @ rows.T).topk(3).values.clamp_min(0.0)
    torch.testing.assert_close(output.loss, 2 * nearest.mean())
    assert set(output.metrics) == {"in_pool"}
    assert float(output.metrics["in_pool"]) == 0.0


Share = tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]


def run_owners() -> list[Share]:
    """Of some steps of each owner: losses and gradients of this process's features; its rows; what all have."""
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    results = []
    for name, head in (("ClassPool", "CosFace"), ("ClassPool", "CurricularFace"), ("PrototypeQueue", "ArcFace")):
        owner: FeatureRows = owner_of(name, head_of(head))
        seen = []
        for number in range(4):
            features, labels = batch(number)
            gallery, _ = batch(100 + number)
            shown = labels.roll(2) if name == "ClassPool" and number % 2 else labels
            shown = shown + 20 * (number % 2) * (torch.arange(BATCH) % 2) if name == "ClassPool" else shown
            own = features[start:stop].requires_grad_()
            weight = torch.linspace(0.5, 1.5, BATCH).double()[start:stop]
            owner.offer(gallery[start:stop], shown[start:stop], keep=True)
            output = owner(own, labels[start:stop], weight)
            output.loss.backward()
            owner.after_update()
            assert own.grad is not None
            seen += [output.loss.detach(), own.grad / distributed.world_size()]
        rows = owner.row_tensors()
        results.append((seen, rows, {key: one for key, one in owner.state_dict().items() if key not in rows}))
    return results


def check_processes(count: int) -> None:
    for one, *shares in zip(run_owners(), *distributed.run_processes(run_owners, count), strict=True):
        for number, expected in enumerate(one[0]):
            if expected.ndim:
                expected_parts = torch.cat([share[0][number] for share in shares])
                torch.testing.assert_close(expected_parts, expected, rtol=1e-9, atol=1e-9)
            for share in shares if not expected.ndim else ():
                torch.testing.assert_close(share[0][number], expected, rtol=1e-9, atol=1e-9)
        for key, expected in one[1].items():
            assert torch.cat([share[1][key] for share in shares]).equal(expected)
        for share in shares:
            torch.testing.assert_close(share[2], one[2], rtol=1e-9, atol=1e-9)


def test_two_processes_equal_one() -> None:
    """Slots, 12 and 19, are spread; of 12 slots and 3 nearest, each process has some of the nearest."""
    check_processes(2)


@pytest.mark.slow
def test_four_processes_equal_one() -> None:
    check_processes(4)
