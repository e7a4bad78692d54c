"""Features in rows and instead of them: VPL and Prototype Memory against their formulas, refusals, two processes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from facelab import distributed
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import Classifier
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.progressive_clusters import PCO
from facelab.head.rows.prototype_memory import PrototypeMemory
from facelab.head.rows.variational_prototypes import VPL

CLASSES, DIM, BATCH, MARGIN, SCALE = 13, 6, 8, 0.2, 8.0


def vpl(**options: Any) -> VPL:
    return VPL(CLASSES, DIM, CosFace(MARGIN, SCALE), seed=1, **options).double()


def memory(size: int = 7) -> PrototypeMemory:
    return PrototypeMemory(CLASSES, DIM, CosFace(MARGIN, SCALE), seed=1, size=size).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Of four people, two images each, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.randperm(CLASSES, generator=generator)[:4].repeat(2)
    features = 3 * torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return features, people[torch.randperm(BATCH, generator=generator)]


def margin_loss(features: Tensor, rows: Tensor, target: Tensor) -> Tensor:
    cosine = normalize(features) @ normalize(rows).T
    own = torch.nn.functional.one_hot(target, len(rows))
    return cross_entropy(SCALE * (cosine - MARGIN * own.to(cosine.dtype)), target)


@pytest.mark.parametrize("rate", [1.0, 0.6])
def test_rows_are_mixed_with_features_that_are_young_enough(rate: float) -> None:
    owner = vpl(share=0.3, age=2, start=1, sample_rate=rate)
    latest: dict[int, tuple[int, Tensor]] = {}
    ages = set()
    for number in range(6):
        features, labels = batch(number)
        features.requires_grad_()
        owner.eval()
        plain = normalize(owner.weight)
        torch.testing.assert_close(owner(features, labels).loss, margin_loss(features, owner.weight, labels))
        owner.train()
        mixed = []
        for person in range(CLASSES):
            seen, feature = latest.get(person, (-99, torch.zeros(DIM).double()))
            fresh = number >= 1 and number - seen <= 2
            ages |= {number - seen} if fresh else set()
            mixed.append(0.7 * plain[person] + 0.3 * feature if fresh else plain[person])
        taken = owner.candidates(features.detach(), labels).taken
        taken = torch.arange(CLASSES) if taken is None else taken
        expected = margin_loss(features, torch.stack(mixed)[taken], torch.searchsorted(taken, labels))
        wanted = torch.autograd.grad(expected, [features, owner.weight])
        output = owner(features, labels)
        output.loss.backward()
        torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=1e-12)
        assert features.grad is not None
        assert owner.weight.grad is not None
        torch.testing.assert_close(features.grad, wanted[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(owner.weight.grad.to_dense(), wanted[1], rtol=1e-10, atol=1e-12)
        owner.weight.grad = None
        owner.after_update()
        for feature, label in zip(normalize(features.detach()), labels.tolist(), strict=True):
            latest[label] = number, feature
    assert ages == {1, 2}


def test_prototypes_are_means_that_the_oldest_make_room_for() -> None:
    owner = memory()
    strangers = list(owner.rows.clone())
    held: list[tuple[int, Tensor]] = []  # the oldest first
    renewed = 0
    for number in range(7):
        features, labels = batch(number)
        features.requires_grad_()
        made = {
            person: normalize(normalize(features.detach()[labels == person]).mean(dim=0), dim=0)
            for person in labels.unique().tolist()
        }
        renewed += sum(person in made for person, _ in held)
        held = [(person, row) for person, row in held if person not in made]
        held = [*held, *made.items()][-7:]
        people = [person for person, _ in held]
        rows = torch.stack([row for _, row in held] + strangers[len(held) :])
        target = torch.tensor([people.index(person) for person in labels.tolist()])
        expected = margin_loss(features, rows, target)
        (wanted,) = torch.autograd.grad(expected, features)
        output = owner(features, labels)
        output.loss.backward()
        torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=1e-12)
        assert features.grad is not None
        torch.testing.assert_close(features.grad, wanted, rtol=1e-10, atol=1e-12)
        owner.after_update()
    assert renewed > 0
    assert {int(person) for person in owner.table.people} == {person for person, _ in held}


def test_evaluation_leaves_nothing_behind() -> None:
    for owner in (vpl(), memory()):
        before = {key: value.clone() for key, value in owner.state_dict().items()}
        owner.eval()
        owner(*batch(0))
        owner.train()
        owner.after_update()
        changed = [key for key, value in owner.state_dict().items() if not value.equal(before[key])]
        assert changed == (["updates"] if isinstance(owner, VPL) else [])


def test_batches_that_make_no_prototypes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"one image of each; set data\.sampler: {ClassBalanced"):
        memory()(torch.ones(3, DIM).double(), torch.arange(3))
    with pytest.raises(ConfigError, match="PrototypeMemory has room for 3 features, but a batch brings those of 4"):
        memory(size=3)(*batch(0))


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="VPL mixes directions, but Softmax takes inner products"):
        VPL(CLASSES, DIM, Softmax())
    with pytest.raises(ConfigError, match="PrototypeMemory keeps no learned numbers, but Softmax learns a bias"):
        PrototypeMemory(CLASSES, DIM, Softmax())
    learned = build(HEADS, "AdaM-Softmax", num_classes=CLASSES)
    assert VPL(CLASSES, DIM, learned)(*(one.float() if one.is_floating_point() else one for one in batch(0))).loss > 0


@pytest.mark.parametrize(("option", "value"), [("share", 1.5), ("age", 0), ("start", -1)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"VPL {option}"):
        vpl(**{option: value})
    with pytest.raises(ConfigError, match="PrototypeMemory size"):
        memory(size=0)


Share = tuple[list[Tensor], dict[str, Tensor]]


def run_owners() -> list[Share]:
    """Of some updates of each owner: losses and gradients of this process's features; its rows."""
    start, stop = distributed.class_range(BATCH, distributed.rank(), distributed.world_size())
    stages = PCO(CLASSES, DIM, CosFace(MARGIN, SCALE), seed=1, sample_rate=1.0, thresholds=(0.0, 0.0), window=2)
    owners: list[Classifier] = [vpl(age=2), memory(), stages.double()]
    results = []
    for owner in owners:
        sgd = torch.optim.SGD([{"params": list(owner.parameters())}], 0.1)
        seen = []
        for number in range(6):
            features, labels = batch(number)
            own = features[start:stop].requires_grad_()
            output = owner(own, labels[start:stop])
            output.loss.backward()
            sgd.step()
            sgd.zero_grad()
            owner.after_update()
            assert own.grad is not None
            seen += [output.loss.detach(), own.grad / distributed.world_size()]
        results.append((seen, {key: one.detach() for key, one in owner.row_tensors().items()}))
    assert int(stages.stage) == 3
    return results


def test_two_processes_equal_one() -> None:
    """Also those that go through the stages of PCO."""
    for one, *shares in zip(run_owners(), *distributed.run_processes(run_owners, 2), strict=True):
        for number, expected in enumerate(one[0]):
            found = [share[0][number] for share in shares]
            together = torch.cat(found) if expected.ndim else found[0]
            torch.testing.assert_close(together, expected, rtol=1e-9, atol=1e-9)
        for key, expected in one[1].items():
            torch.testing.assert_close(torch.cat([share[1][key] for share in shares]), expected, rtol=1e-9, atol=1e-9)


def test_features_of_updates_to_come_are_refused() -> None:
    rows = vpl()
    rows.check_rows()
    rows(*batch(0)).loss.backward()
    rows.after_update()
    rows.check_rows()
    for wrong in (1, -2):
        rows.seen[0] = wrong
        with pytest.raises(CheckpointError, match="'seen' of VPL must be whole numbers from -1 to 0, and some are not"):
            rows.check_rows()
