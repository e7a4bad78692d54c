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


def every_layout() -> dict[str, Tensor]:
    """The same kind of batch in all ways that memory can hold it."""
    stored = torch.randint(0, 256, (5, 6, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    channels_last = stored.permute(0, 3, 1, 2)
    return {
        "channels_last": channels_last,
        "contiguous": channels_last.contiguous(),
        "a part of a batch": channels_last[1:4],
        "every second image": channels_last[::2],
        "a crop": channels_last[:, :, 1:5, 2:7],
        "one image many times": channels_last[:1].expand(3, -1, -1, -1),
        "mirrored memory order": stored.permute(0, 3, 2, 1),
        "one image": channels_last[:1],
        "no image": channels_last[:0],
    }


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize(("mean", "std"), [(127.5, 127.5), (127.5, 128.0), (0.0, 255.0), (103.9, 57.3)])
@pytest.mark.parametrize("layout", every_layout())
def test_every_bit_is_that_of_the_formula_in_float32(layout: str, mean: float, std: float, colour: Any) -> None:
    pixels = every_layout()[layout]
    ordered = pixels.flip(1) if colour == "BGR" else pixels
    expected = ordered.to(torch.float32).sub(mean).div(std)
    image = normalise(pixels, InputSpec(*pixels.shape[2:], colour=colour, mean=mean, std=std))
    assert torch.equal(image, expected)
    assert image.stride() == expected.stride()
    assert torch.equal(pixels, every_layout()[layout])


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
