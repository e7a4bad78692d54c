"""Amplitudes of patches are mixed as the original mixes them, and properties of the mixing and of the draws."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.backbone.base import PatchGrid
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.training_mode.transface.dpap import Donors, mix_amplitudes, perturb

COPY = Path(__file__).resolve().parents[2] / "golden" / "transface"
NEAR_INTEGER = 1e-3  # of a float, where fp32 and float64 may lie on two sides of a whole number

Arrays = dict[str, np.ndarray[Any, Any]]


def read(folder: Path) -> tuple[dict[str, Any], Arrays]:
    with np.load(folder / "dpap.npz") as arrays:
        return json.loads((folder / "index.json").read_text())["dpap"]["options"], dict(arrays)


def channels_first(pixels: np.ndarray[Any, Any]) -> Tensor:
    """(…, H, W, 3) -> (…, 3, H, W)."""
    return torch.from_numpy(np.moveaxis(pixels, -1, -3).copy())


def check_patches(folder: Path) -> None:
    options, arrays = read(folder)
    for case in options["patch_cases"]:
        key = f"patch{case['index']:02d}"
        own, donor, mixed = (channels_first(arrays[f"{key}/{name}"]) for name in ("source", "donor", "mixed_float"))
        found = mix_amplitudes(own, donor, torch.tensor(case["lam"], dtype=own.dtype), case["ratio"])
        torch.testing.assert_close(found, mixed, rtol=0, atol=1e-8)


def check_batch(folder: Path) -> None:
    options, arrays = read(folder)
    side, patches = options["patch"], arrays["batch/topk_patch"].shape[1]
    images = arrays["batch/images_uint8"]
    grid = PatchGrid(images.shape[1] // side, images.shape[2] // side, side)
    place = torch.from_numpy(arrays["batch/token_weight"]).topk(patches, dim=1).indices
    assert torch.equal(place, torch.from_numpy(arrays["batch/topk_patch"]))
    rows = np.flatnonzero(arrays["batch/selected"])
    donors = Donors(
        rows,
        arrays["batch/donor_image"][rows],
        arrays["batch/donor_patch"][rows],
        arrays["batch/lam"][rows].astype(np.float32),
    )
    pixels = channels_first(images).contiguous(memory_format=torch.channels_last)
    given = pixels.clone()
    found = perturb(pixels, grid, place[rows], donors)
    assert torch.equal(pixels, given)
    expected = channels_first(arrays["batch/perturbed_donor_original"])
    different = (found != expected).nonzero()
    mixed = arrays["batch/mixed_float_donor_original"]
    near = np.abs(mixed - np.rint(mixed)) < NEAR_INTEGER
    assert len(different) <= near.sum()
    assert int((found.int() - expected.int()).abs().max()) <= 1
    network_input = (found[:1].float() / 255 - 0.5) / 0.5
    golden = torch.from_numpy(arrays["batch/network_input_donor_original"])
    crop = network_input[:, :, : golden.shape[2], : golden.shape[3]]
    assert int(((crop - golden).abs() > 1e-6).sum()) <= near.sum()


def test_patches_equal_those_of_the_original() -> None:
    check_patches(COPY)


def test_a_batch_equals_that_of_the_original() -> None:
    check_batch(COPY)


@pytest.mark.golden
def test_those_of_the_golden_folder_too(golden_root: Path) -> None:
    check_patches(golden_root / "algorithms")
    check_batch(golden_root / "algorithms")


def test_the_phase_stays_and_the_amplitude_is_mixed() -> None:
    generator = torch.Generator().manual_seed(0)
    own, donor = torch.rand(2, 5, 3, 8, 8, generator=generator, dtype=torch.float64) * 255
    mixed = torch.fft.fft2(mix_amplitudes(own, donor, torch.tensor(0.3)))
    expected = 0.7 * torch.fft.fft2(own).abs() + 0.3 * torch.fft.fft2(donor).abs()
    torch.testing.assert_close(mixed.abs(), expected)
    torch.testing.assert_close(torch.exp(1j * mixed.angle()), torch.exp(1j * torch.fft.fft2(own).angle()))


def test_a_black_patch_gets_the_amplitude_of_the_donor_without_phase() -> None:
    donor = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mixed = mix_amplitudes(torch.zeros(1, 3, 4, 4), donor, torch.ones(()))
    assert bool(mixed.isfinite().all())
    torch.testing.assert_close(torch.fft.fft2(mixed).abs(), torch.fft.fft2(donor).abs())


def test_only_the_chosen_patches_of_the_chosen_images_change() -> None:
    grid = PatchGrid(3, 4, 5)
    pixels = torch.randint(0, 256, (4, 3, 17, 23), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    place = torch.tensor([[0, 11], [5, 6]])
    one = np.ones((2, 2), np.int64)
    found = perturb(pixels, grid, place, Donors(np.array([0, 2]), 3 * one, one, 0.9 * one.astype(np.float32)))
    changed = torch.zeros(4, 3, 4, dtype=torch.bool)
    for row, places in zip([0, 2], place.tolist(), strict=True):
        for number in places:
            changed[row, number // 4, number % 4] = True
    pixels_changed = (found != pixels).any(dim=1)
    patches = pixels_changed[:, :15, :20].view(4, 3, 5, 4, 5).any(dim=4).any(dim=2)
    assert torch.equal(patches, changed)
    assert not bool(pixels_changed[:, 15:].any() | pixels_changed[:, :, 20:].any())


def drawn(rows: range, batch: int = 4000) -> Donors:
    state = draws_of_batch(3, 1, 2, np.arange(rows.start, rows.stop))
    return Donors.drawn(Draws(state, "dpap"), batch, PatchGrid(12, 12, 9), 7, probability=0.2, strength=0.5)


def test_donors_are_even_over_the_batch() -> None:
    donors = drawn(range(4000))
    assert len(donors.rows) / 4000 == pytest.approx(0.2, abs=0.02)
    assert (donors.image.mean(), donors.patch.mean()) == pytest.approx((2000, 72), rel=0.05)
    assert (donors.share.min(), donors.share.max()) == pytest.approx((0, 0.5), abs=0.01)
    assert donors.share.dtype == np.float32


def test_an_image_is_changed_by_its_row_of_the_global_batch() -> None:
    whole, second = drawn(range(40)), drawn(range(20, 40))
    late = whole.rows >= 20
    assert np.array_equal(whole.rows[late], second.rows + 20)
    assert np.array_equal(whole.patch[late], second.patch)
