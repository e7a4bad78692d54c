"""AdaFace's augmentation: each piece against the original program, with the draws fixed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.transforms.augment import Augment
from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.colour_jitter import jitter
from facelab.data.transforms.crop_in_place import CropInPlace, keep_boxes
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.kernels import KERNELS, kernel_weights
from facelab.data.transforms.low_resolution import resized
from facelab.data.transforms.rows import as_pixels

COPY = Path(__file__).resolve().parents[2] / "golden" / "algorithms"
WHOLE = np.full((1, 2), 112)
PARTS = ["brightness", "contrast", "saturation"]


def tensor(pixels: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def compare(folder: Path) -> None:
    options = json.loads((folder / "index.json").read_text())["adaface_augment"]["options"]
    with np.load(folder / "adaface_augment.npz") as arrays:
        image = tensor(arrays["image"])
        for case in options["low_resolution"]:
            side = np.full((1, 2), case["small_side"])
            small = as_pixels(resized(image.float(), [case["down"]], WHOLE, side, side[0]))
            found = as_pixels(resized(small.float(), [case["up"]], side, WHOLE, WHOLE[0]))
            difference = (found.int() - tensor(arrays[f"lowres{case['index']}"]).int()).abs().float()
            assert difference.max() <= (0 if case["down"] == case["up"] == "nearest" else 2), case
            assert difference.mean() <= 0.5, case
        for case in options["crop"]:
            found = keep_boxes(image, np.array([case["top_left_height_width"]]))
            assert torch.equal(found, tensor(arrays[f"crop{case['index']}"])), case
        for case in options["photometric"]:
            factors = np.array([[case[part] for part in PARTS]])
            order = np.array([[PARTS.index(part) for part in case["order"] if part != "hue"]])
            difference = jitter(image, factors, order).int() - tensor(arrays[f"photo{case['index']}"]).int()
            assert difference.abs().max() <= 1, case


def test_pieces_give_the_pixels_of_the_original() -> None:
    compare(COPY)


def test_golden_folder(golden_root: Path) -> None:
    compare(golden_root / "algorithms")


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_add_up_and_leave_a_line_of_equal_length_alone(kernel: str) -> None:
    for size, length in ((112, 23), (23, 112), (9, 9)):
        np.testing.assert_allclose(kernel_weights(kernel, size, length).sum(axis=1), 1.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(kernel_weights(kernel, 9, 9), np.eye(9), atol=1e-12)  # type: ignore[arg-type]


def test_interpolation_draws_both_kernels_independently() -> None:
    """Of a bright line at one resolution there are almost as many pictures as pairs of kernels."""
    image = torch.zeros(400, 3, 24, 24, dtype=torch.uint8)
    image[:, :, 9:12] = 200
    number = torch.arange(len(image))
    options = {"probability": 1.0, "resolution": [9, 9], "recipe": "interpolation"}
    found = Augment({"low_resolution": options}, 0)(Batch(image, number, number), 0, 0).image
    assert len(found.flatten(1).unique(dim=0)) >= 20


def test_kept_parts_have_the_area_and_shape_that_was_asked_for() -> None:
    image = torch.full((500, 3, 100, 100), 9, dtype=torch.uint8)
    transform = CropInPlace(probability=1.0, smallest=0.25)
    found = transform.image(image, Draws(draws_of_batch(0, 0, 0, np.arange(500)), "crop_in_place"))[:, 0] == 9
    height, width = found.any(dim=2).sum(dim=1), found.any(dim=1).sum(dim=1)
    assert torch.equal(height * width, found.sum(dim=(1, 2)))
    area, shape = height * width / 1e4, width / height
    assert 0.24 <= area.min() < 0.3
    assert area.max() > 0.95
    assert 0.73 <= shape.min() < 0.8
    assert 1.25 < shape.max() <= 1.36


def test_a_part_that_fits_nowhere_is_the_largest_that_does() -> None:
    """Nothing of four fifths of a strip of 1 : 4 is less than twice as long as wide."""
    image = torch.full((5, 3, 80, 20), 9, dtype=torch.uint8)
    transform = CropInPlace(probability=1.0, smallest=0.9, elongation=2.0)
    found = transform.image(image, Draws(draws_of_batch(0, 0, 0, np.arange(5)), "crop_in_place"))[:, 0] == 9
    assert found.sum(dim=(1, 2)).tolist() == [40 * 20] * 5


def test_jitter_with_factors_of_one_changes_nothing() -> None:
    transform = TRANSFORMS.build(
        "colour_jitter", {"probability": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    )
    image = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(transform.image(image, Draws(draws_of_batch(0, 0, 0, np.arange(6)), "colour_jitter")), image)


def test_jitter_keeps_no_order() -> None:
    """Brightness after contrast about a mean is another picture than before it only through clipping; here it clips."""
    image = torch.tensor([[[[0, 250]]] * 3], dtype=torch.uint8).reshape(1, 3, 1, 2)
    factors = np.array([[0.5, 1.5, 1.0]])
    first, second = (jitter(image, factors, np.array([order])) for order in ([0, 1, 2], [1, 0, 2]))
    assert first[0, 0, 0].tolist() == [0, 156]  # 0, 125 and then 63 +- 1.5 of the distance
    assert second[0, 0, 0].tolist() == [0, 127]  # 255 at most, and half of it
