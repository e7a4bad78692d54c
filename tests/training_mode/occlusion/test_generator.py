"""Who drops which cells: the area limit, the gradient, and where chance drops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.training_mode.occlusion.generator import (
    ChanceScores,
    MaskGenerator,
    drop_highest,
    reversed_gradient,
)
from facelab.training_mode.occlusion.place import Cells

COUNT = 200


def dropped(kind: str, cells: Cells, count: int, spec: InputSpec | None = None) -> torch.Tensor:
    chance = ChanceScores(kind, cells, spec or InputSpec())  # type: ignore[arg-type]
    scores = torch.from_numpy(chance(Draws(draws_of_batch(0, 0, 0, np.arange(COUNT)), "occlusion")))
    return drop_highest(scores, count).view(COUNT, cells.rows, cells.columns)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.floats(0.01, 0.99), st.sampled_from(["random", "landmark", "half_face"])
)
def test_no_image_loses_more_than_the_area(rows: int, columns: int, area: float, kind: str) -> None:
    cells = Cells(4, rows, columns)
    count = max(1, int(area * cells.count))
    drop = dropped(kind, cells, count)
    assert torch.equal(drop.sum(dim=(1, 2)), torch.full((COUNT,), float(count), dtype=drop.dtype))
    assert set(drop.unique().tolist()) <= {0.0, 1.0}


@given(st.integers(0, 1000), st.integers(1, 15))
@settings(max_examples=20, deadline=None)
def test_a_learned_generator_keeps_the_limit_whatever_its_weights(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    generator = MaskGenerator(6)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1 + 50 * (seed % 7))
    drop = drop_highest(generator(torch.randn(5, 6, 4, 4)), count)
    assert torch.equal(drop.sum(dim=1), torch.full((5,), float(count)))


def test_the_highest_are_dropped_and_all_cells_learn() -> None:
    scores = torch.tensor([[0.1, 2.0, -1.0, 0.5], [3.0, 0.0, 0.2, 0.1]], requires_grad=True)
    drop = drop_highest(scores, 2)
    assert drop.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    effect = torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    (effect * reversed_gradient(drop, 0.5)).sum().backward()
    soft = scores.detach().sigmoid()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, -0.5 * effect * soft * (1 - soft))


def test_the_generator_finds_the_cells_that_a_loss_needs() -> None:
    """A loss that falls with what is left of the channel 0 is raised by dropping where that is."""
    torch.manual_seed(0)
    generator = MaskGenerator(4)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    for _ in range(40):
        features = torch.rand(16, 4, 4, 4)
        keep = 1 - reversed_gradient(drop_highest(generator(features), 4))
        loss = -(features[:, 0].flatten(1) * keep).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features = torch.rand(200, 4, 4, 4)
    drop = drop_highest(generator(features), 4)
    mean = float((features[:, 0].flatten(1) * drop).sum(dim=1).mean() / 4)
    assert mean > 0.75, "of numbers between 0 and 1; the best would be 0.85, chance is 0.5"


@pytest.mark.parametrize(
    ("spec", "parts"), [(InputSpec(), 5), (InputSpec(height=56, face_height=112), 3)], ids=["face", "upper half"]
)
def test_landmarks_lie_where_aligned_faces_have_them(spec: InputSpec, parts: int) -> None:
    """The upper half has the eyes, one of them or both."""
    drop = dropped("landmark", Cells(1, spec.height // 8, 14), 4, spec).bool()
    eyes = drop[:, 51 // 8, 38 // 8], drop[:, 51 // 8, 73 // 8]
    assert (eyes[0] & eyes[1]).float().mean() == pytest.approx(1 / parts, abs=0.1)
    assert eyes[0].float().mean() == pytest.approx(2 / parts, abs=0.1)
    assert not drop[:, :4].any(), "no part lies on the forehead"


def test_a_network_that_sees_no_landmark_is_refused() -> None:
    with pytest.raises(ConfigError, match="sees the upper 32 of 112 rows of the face, above all of them; set gen"):
        dropped("landmark", Cells(1, 4, 14), 4, InputSpec(height=32, face_height=112))


def test_half_faces_are_dropped_from_the_four_sides() -> None:
    drop = dropped("half_face", Cells(1, 4, 4), 8)
    sides = [drop[:, :, :2], drop[:, :, 2:], drop[:, :2], drop[:, 2:]]
    parts = [float(side.flatten(1).all(dim=1).float().mean()) for side in sides]
    assert sum(parts) == pytest.approx(1)
    assert min(parts) > 0.15


def test_random_cells_come_alike_from_everywhere() -> None:
    often = dropped("random", Cells(1, 3, 3), 3).mean(dim=0)
    assert (often - 1 / 3).abs().max() < 0.12
