"""Losses that no original gives numbers for, worked by hand or by loops; and every registered one."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.errors import ConfigError
from facelab.training_mode.distillation.loss import DISTILLATIONS, DistillationLoss, Outputs, Shapes
from facelab.training_mode.distillation.losses.margin import given_margins
from facelab.training_mode.distillation.losses.nst import discrepancy
from facelab.training_mode.distillation.losses.rkd import angles, distances

CLASSES, BATCH, DIM = 7, 4, 6
SHAPES = Shapes(DIM, ((4, 8, 8), (6, 4, 4), (6, 2, 2), (8, 2, 2)))

every_loss = pytest.mark.parametrize("name", DISTILLATIONS.names())


def build(name: str, **options: Any) -> DistillationLoss:
    torch.manual_seed(0)
    rows = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(1))
    return DISTILLATIONS.build(name, options, student=SHAPES, teacher=SHAPES, rows=rows, num_classes=CLASSES)


def outputs(seed: int, batch: int = BATCH, embedding: Tensor | None = None) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    given = torch.randn(batch, DIM, generator=generator) if embedding is None else embedding
    maps = tuple(torch.randn(batch, *shape, generator=generator) for shape in SHAPES.maps)
    return Outputs(given, maps, torch.randn(batch, CLASSES, generator=generator))


LABELS = torch.tensor([0, 3, 6, 3])


@every_loss
def test_it_documents_its_options_and_its_paper(name: str) -> None:
    cls = DISTILLATIONS.get(name)
    text = inspect.getdoc(cls) or ""
    assert [option for option in DISTILLATIONS.parameters(name) if f"    {option}: " not in text] == []
    assert cls.citation is not None or name == "Cosine"


@every_loss
def test_it_draws_the_student_to_the_teacher(name: str) -> None:
    loss, teacher = build(name), outputs(1)
    student = outputs(2)
    parts = [student.embedding.requires_grad_(), *(one.requires_grad_() for one in student.maps)]
    assert student.logits is not None
    parts += [student.logits.requires_grad_(), *loss.parameters()]
    optimizer = torch.optim.Adam(parts, lr=0.05)
    values = []
    for _ in range(30):
        value = loss(student, teacher, LABELS)
        assert value.shape == ()
        optimizer.zero_grad()
        value.backward()
        assert all(bool(part.grad.isfinite().all()) for part in parts if part.grad is not None)
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]


@every_loss
def test_the_same_outputs_are_no_further_apart_than_others(name: str) -> None:
    loss, teacher = build(name), outputs(1)
    alike = float(loss(outputs(1), teacher, LABELS).detach())
    assert alike <= float(loss(outputs(2), teacher, LABELS).detach())
    if name not in ("MarginDistillation", "FT"):  # these learn, or compare with something else than the outputs
        assert alike == pytest.approx(0.0, abs=1e-5)


def test_distances_are_divided_by_their_mean() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])  # distances 5, 4, 3
    expected = torch.tensor([[0, 5, 4], [5, 0, 3], [4, 3, 0]]) / 4.0
    torch.testing.assert_close(distances(points, points), expected)
    torch.testing.assert_close(distances(points[1:], points), expected[1:])


def test_angles_are_those_at_the_anchor() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    found = angles(points[:1], points)[0]
    assert float(found[1, 2]) == pytest.approx(math.cos(math.pi / 4))
    assert float(found[1, 1]) == pytest.approx(1.0)
    assert bool((found[0] == 0).all()), "an edge of length 0 has no angle"


def test_the_discrepancy_of_channels_is_that_of_loops() -> None:
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 2, 2)
    expected = 0.0
    for own_maps, other_maps in zip(student, teacher, strict=True):
        own = [one.flatten() / one.norm() for one in own_maps]
        other = [one.flatten() / one.norm() for one in other_maps]

        def mean(first: list[Tensor], second: list[Tensor]) -> float:
            return sum(float(x @ y) ** 2 for x in first for y in second) / (len(first) * len(second))

        expected += (mean(other, other) + mean(own, own) - 2 * mean(own, other)) / 2
    assert float(discrepancy(student, teacher)) == pytest.approx(expected, abs=1e-6)


def test_margins_follow_the_teacher() -> None:
    found = given_margins(torch.tensor([0.8, 0.4, 0.0, -0.5]), 0.2, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.35, 0.2, 0.2]))
    assert bool(given_margins(torch.tensor([-0.1, -0.5]), 0.2, 0.5).isfinite().all())


@pytest.mark.parametrize(
    ("name", "options", "teacher", "sentence"),
    [
        (
            "Angular",
            {},
            Shapes(9),
            "student's have 6 numbers and the teacher's 9; set backbone feat_dim: 9, or A",
        ),
        ("MarginDistillation", {}, Shapes(9), "embeddings of 6 numbers with class rows of 9; set backbone feat_dim: 9"),
        ("FitNet", {"student_stage": 4}, SHAPES, "FitNet stage is 4, but the student has 4 feature maps"),
        ("FSP", {}, Shapes(DIM, ((5, 4, 4),) * 4), r"student has \[4, 6, 6, 8\] channels .* teacher \[5, 5, 5, 5\]"),
        ("FSP", {"student_stages": [0]}, SHAPES, "must be equally many, and two at least"),
        ("RKD", {"distance": 0, "angle": 0}, SHAPES, "distance and angle are both 0"),
        ("Cosine", {"power": 3}, SHAPES, "Cosine power is 3, but must be 1 or 2"),
        ("SoftTarget", {"temperature": 0}, SHAPES, "SoftTarget temperature is 0.0"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], teacher: Shapes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DISTILLATIONS.build(name, options, student=SHAPES, teacher=teacher, rows=torch.ones(7, 9), num_classes=CLASSES)


def test_relations_by_hand_whatever_the_scale_and_the_place() -> None:
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    for scale, place in ((1.0, 0.0), (0.01, 5.0), (100.0, -3.0)):
        moved = scale * triangle + place
        expected = torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]], dtype=torch.float64) / 4.0
        torch.testing.assert_close(distances(moved, moved), expected)
        torch.testing.assert_close(distances(moved[1:2], moved), expected[1:2])
        found = angles(moved, moved)
        assert found.shape == (3, 3, 3)
        corners = [float(found[at, one, other]) for at, one, other in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
        assert corners == pytest.approx([0.0, 0.6, 0.8])
        assert not found[[0, 1, 2], [0, 1, 2]].any(), "there is no angle to itself"


@pytest.mark.parametrize("name", ["Angular", "Cosine"])
def test_a_projection_reaches_another_length(name: str) -> None:
    loss = DISTILLATIONS.build(name, {"projection": True}, student=SHAPES, teacher=Shapes(9))
    assert [tuple(one.shape) for one in loss.parameters()] == [(9, DIM)]
    assert loss(outputs(1), Outputs(torch.randn(BATCH, 9)), LABELS).isfinite()


@pytest.mark.parametrize("name", ["FitNet", "NST", "FT"])
def test_maps_of_other_channels_and_sizes_are_compared(name: str) -> None:
    teacher = Shapes(DIM, ((10, 8, 8), (12, 4, 4)))
    loss = DISTILLATIONS.build(name, student=SHAPES, teacher=teacher)
    maps = tuple(torch.randn(BATCH, *shape) for shape in teacher.maps)
    assert loss(outputs(1), Outputs(torch.randn(BATCH, DIM), maps), LABELS).isfinite()
