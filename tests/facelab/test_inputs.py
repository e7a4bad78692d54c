"""Normalisation of pixels: golden values of every project, by hand, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.errors import DataError
from facelab.inputs import InputSpec, normalise

SMALL_COPY = Path(__file__).parents[1] / "golden" / "preprocessing"


def spec_of(option: dict[str, Any], size: tuple[int, int]) -> InputSpec:
    """The spec that maps 0..255 to the range and colour order of a project's entry in the golden index."""
    low, high = option["range"]
    std = 255.0 / (high - low)
    return InputSpec(*size, colour=option["order"], mean=-low * std, std=std)


def check_all_projects(folder: Path) -> None:
    case = json.loads((folder / "index.json").read_text())["preprocessing"]
    tolerance = float(case["tolerance"].split()[-1])
    with np.load(folder / "preprocessing.npz") as arrays:
        golden = dict(arrays)
    pixels = torch.from_numpy(golden["image_rgb"]).permute(2, 0, 1)[None]
    projects = [
        name for name, option in case["options"].items() if option["order"] in ("RGB", "BGR") and name in golden
    ]
    assert projects
    for name in projects:
        spec = spec_of(case["options"][name], tuple(pixels.shape[2:]))
        expected = torch.from_numpy(golden[name]).float()
        torch.testing.assert_close(normalise(pixels, spec)[0], expected, atol=tolerance, rtol=0.0, msg=name)


def test_projects_of_the_small_copy() -> None:
    check_all_projects(SMALL_COPY)


@pytest.mark.golden
def test_projects_of_the_golden_folder(golden_root: Path) -> None:
    check_all_projects(golden_root / "algorithms")


def pixels_of(red: int, green: int, blue: int) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 6).contiguous()


def test_colour_order_and_range_by_hand() -> None:
    image = normalise(pixels_of(0, 255, 51), InputSpec(4, 6, colour="BGR", mean=0.0, std=255.0))
    assert image.shape == (2, 3, 4, 6)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[0, :, 0, 0], torch.tensor([0.2, 1.0, 0.0]))


def test_the_default_range_is_minus_one_to_one() -> None:
    image = normalise(pixels_of(0, 255, 0), InputSpec(4, 6))
    assert image[0, :, 0, 0].tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_pixels_are_not_changed_and_the_memory_format_is_kept(colour: Any) -> None:
    pixels = pixels_of(1, 2, 3).contiguous(memory_format=torch.channels_last)
    image = normalise(pixels, InputSpec(4, 6, colour=colour))
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, pixels_of(1, 2, 3))


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(2, 3, 4, 6),
        torch.zeros(3, 4, 6, dtype=torch.uint8),
        torch.zeros(2, 4, 6, 3, dtype=torch.uint8),
        torch.zeros(2, 1, 4, 6, dtype=torch.uint8),
    ],
    ids=["float", "one image", "channels last", "grey"],
)
def test_other_than_uint8_rgb_batches_are_refused(pixels: Tensor) -> None:
    with pytest.raises(DataError, match=r"images must be uint8 RGB of shape \(B, 3, H, W\), got"):
        normalise(pixels, InputSpec(4, 6))


def test_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"images are 4x6, but the network takes 112x112; .* align the images"):
        normalise(pixels_of(0, 0, 0), InputSpec())


def test_a_spec_describes_itself() -> None:
    assert InputSpec().describe() == "112x112 RGB, -1..1"
    assert InputSpec(60, 112, colour="BGR", std=128.0).describe() == "60x112 BGR, -0.9961..0.9961"
    assert InputSpec(mean=0.0, std=255.0).describe() == "112x112 RGB, 0..1"
