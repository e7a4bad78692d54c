"""Objects in front of faces: they cover what they say, lie where they are worn, and move with the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.alignment.alignment import ARCFACE_112
from facelab.data.base import Batch
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.base import TRANSFORMS, Stage, Transform
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.objects import OUTLINES
from facelab.data.transforms.occlude import Occlude
from facelab.errors import ConfigError

COUNT = 48
NUMBER = torch.arange(COUNT)
covering = pytest.mark.parametrize("name", [one for one in TRANSFORMS.names() if TRANSFORMS.get(one).occludes])
every_kind = pytest.mark.parametrize("kind", OUTLINES)


def grey(level: int, height: int = 112, width: int = 112) -> Tensor:
    shape = (COUNT, 3, height, width)
    return torch.full(shape, level, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)


def drawn(name: str = "occlude") -> Draws:
    return Draws(draws_of_batch(0, 0, 0, np.arange(COUNT)), name)


def covered(kind: str, height: int = 112, width: int = 112) -> Tensor:
    transform = TRANSFORMS.build("occlude", {"probability": 1.0, "kinds": [kind]})
    return transform.occluded(grey(0, height, width), drawn())[:, 0]


@covering
def test_covered_is_what_does_not_show_the_picture(name: str) -> None:
    """Whatever the colour of a pixel: one that is as bright as what covers it cannot be told in one picture."""
    transform = TRANSFORMS.build(name, {"probability": 0.7})
    pictures = [grey(level, 56, 48) for level in (3, 250)]
    found = [transform.image(picture, drawn(name)) for picture in pictures]
    changed = [(one != picture).any(dim=1, keepdim=True) for one, picture in zip(found, pictures, strict=True)]
    masks = [transform.occluded(picture, drawn(name)) for picture in pictures]
    assert torch.equal(masks[0], masks[1])
    assert masks[0].dtype == torch.bool
    assert 0 < masks[0].amax(dim=(1, 2, 3)).sum() < COUNT
    if name == "mask":  # with soft edges, of which one half counts
        edge = (changed[0] | changed[1]) != masks[0]
        assert edge.float().mean() < 0.05
    else:
        assert torch.equal(changed[0] | changed[1], masks[0])


@every_kind
def test_sizes_are_sensible_at_any_resolution(kind: str) -> None:
    part, small = covered(kind).float().mean(dim=(1, 2)), covered(kind, 56, 56).float().mean(dim=(1, 2))
    assert part.max() < 0.6
    assert part.mean() > 0.04
    assert (part - small).abs().max() < 0.03
    upper = covered(kind)[:, :56]
    assert torch.equal(covered(kind, 56, 112), upper), "the upper half of a face has the upper half of an object"


@pytest.mark.parametrize(
    ("kind", "hidden", "seen"), [("sunglasses", (0, 1), (2, 3, 4)), ("scarf", (3, 4), (0, 1))], ids=lambda one: str(one)
)
def test_what_the_face_wears_lies_where_it_is_worn(kind: str, hidden: tuple[int, ...], seen: tuple[int, ...]) -> None:
    picture, points = covered(kind), np.rint(ARCFACE_112).astype(int)
    at = [picture[:, y, x] for x, y in points]
    assert all(at[point].float().mean() > 0.9 for point in hidden)
    assert not any(at[point].any() for point in seen)


def test_objects_differ_and_all_kinds_come() -> None:
    image = Occlude(1.0).image(grey(117), drawn())
    assert len(image.flatten(1).unique(dim=0)) == COUNT
    assert set(np.unique(Occlude(1.0)._kinds(drawn(), np.arange(COUNT)))) == set(range(len(OUTLINES)))


def test_what_is_hidden_moves_with_the_picture() -> None:
    """White objects on black: behind all changes of place, what is hidden is what is white."""
    batch = Batch(grey(0), NUMBER, NUMBER)
    augment = Augment({"occlude": {"probability": 0.8}, "affine": {"probability": 0.5}, "flip": 0.5}, 3)
    augment.transforms["occlude"] = White(0.8)
    found = augment(batch, 1, 2, occluded=True)
    assert found.occluded is not None
    white = found.image[:, :1]
    assert torch.equal(found.occluded, white >= 128)
    assert augment(batch, 1, 2).occluded is None
    assert torch.equal(augment(batch, 1, 2).image, found.image)


class White(Occlude):
    """The same objects, all white."""

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        return torch.where(self.occluded(image, draw), 255, image)


def test_parts_of_a_batch_hide_what_the_whole_batch_does() -> None:
    batch = Batch(grey(9, 32, 32), NUMBER, NUMBER)
    augment = Augment(
        {"occlude": {"probability": 0.6}, "erase": {"probability": 0.3}, "shift": {"probability": 0.5}}, 5
    )
    whole = augment(batch, 2, 4, occluded=True).occluded
    parts = [
        augment(replace(batch, image=batch.image[rows]), 2, 4, rows.start, occluded=True).occluded
        for rows in (slice(0, 7), slice(7, COUNT))
    ]
    assert whole is not None
    assert torch.equal(torch.cat([part for part in parts if part is not None]), whole)


def test_a_transform_that_covers_must_say_what() -> None:
    with pytest.raises(ConfigError, match="Cover occludes, so it must override the method occluded"):

        class Cover(Transform):
            stage = Stage.COVER
            changes_quality = moves_keypoints = False
            occludes = True


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="option 'kinds.0' is 'hat'.*'scarf'"):
        TRANSFORMS.build("occlude", {"kinds": ["hat"]})
