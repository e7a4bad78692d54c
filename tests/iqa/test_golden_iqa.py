"""BRISQUE and CNNIQA give the scores of the original programs."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from facelab.iqa.brisque import BRISQUE, grey_as_published
from facelab.iqa.cnniqa import CNNIQA, grey_patches, locally_normalised
from facelab.iqa.luma import rounded_luma
from facelab.iqa.scene_statistics import contrast_normalised

COPY = Path(__file__).resolve().parent.parent / "golden" / "iqa"
BRISQUE_IN_FP32 = 5e-4  # ours takes moments in fp32: 1.7e-4 at most, with float64 for them 4e-6
# In flat areas the original counts the signs of rounding errors, which differ between versions of SciPy and NumPy: with
# the order of SciPy 1.17 ours is 0.069 off at most, the same on every processor.
BRISQUE_OF_FLAT_AREAS = 0.1
# CNNIQA in float64 depends on no processor. The stored originals are fp32: 2.8e-6 of a score, 3e-8 of a pixel.
CNNIQA_RELATIVE, CNNIQA_ABSOLUTE = 5e-6, 1e-7
Arrays = dict[str, NDArray[Any]]


class Golden:
    """One algorithm: its arrays, and what the index says of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.index: dict[str, Any] = json.loads((folder / "index.json").read_text())[name]
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays: Arrays = dict(arrays)

    def network(self, name: str) -> dict[str, Tensor]:
        start = f"{name}/"
        found = {key.removeprefix(start): value for key, value in self.arrays.items() if key.startswith(start)}
        return {key: torch.from_numpy(value) for key, value in found.items()} or self._by_rule(name)

    def _by_rule(self, name: str) -> dict[str, Tensor]:
        """The weights that follow from the names of the tensors."""
        shapes = re.findall(r"([\w.]+) \[([\d, ]+)\]", self.index["options"][name].partition("Keys:")[2])
        weights = {}
        for key, shape in shapes:
            sizes = tuple(map(int, shape.split(",")))
            drawn = np.random.default_rng(crc32(key.encode())).standard_normal(sizes).astype(np.float32)
            factor = 0.1 if len(sizes) == 1 else 3 / np.sqrt(np.prod(sizes[1:]))
            weights[key] = torch.from_numpy((factor * drawn).astype(np.float32))
        return weights

    def images(self, ending: str) -> Iterator[tuple[str, Tensor]]:
        """Name and pixels, (1, 3, H, W), of the images that have an array of this name."""
        for key in self.arrays:
            name, _, rest = key.partition("/")
            if rest == ending:
                yield name, torch.from_numpy(self.arrays[f"{name}/rgb"]).permute(2, 0, 1)[None]

    def close(self, found: Tensor, expected: str) -> None:
        assert found.dtype == torch.float64, "compared in a precision that depends on the machine"
        there = self.arrays[expected]
        np.testing.assert_allclose(
            found.numpy().reshape(there.shape), there, rtol=CNNIQA_RELATIVE, atol=CNNIQA_ABSOLUTE
        )


class PreciseCNNIQA(CNNIQA):
    """In float64."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self._weights = {name: tensor.double() for name, tensor in self._weights.items()}


@pytest.fixture(params=["copy", pytest.param("all", marks=pytest.mark.golden)])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "copy":
        return COPY
    root: Path = request.getfixturevalue("golden_root")
    return root / "algorithms"


@pytest.mark.skipif(find_spec("brisque") is None, reason="BRISQUE needs the package brisque (pip install brisque)")
def test_brisque(folder: Path) -> None:
    golden = Golden(folder, "brisque")
    pixels = torch.from_numpy(golden.arrays["images"]).permute(0, 3, 1, 2)
    flat = (contrast_normalised(grey_as_published(pixels)).abs() < 1e-9).flatten(1).any(dim=1).numpy()
    assert 0 < flat.sum() < len(flat)
    error = np.abs(BRISQUE().score(pixels).numpy() - golden.arrays["scores"])
    assert error[~flat].max() < BRISQUE_IN_FP32
    assert error[flat].max() < BRISQUE_OF_FLAT_AREAS


@pytest.mark.parametrize("net", ["small", "full"])
def test_cnniqa_of_grey_patches(folder: Path, tmp_path: Path, net: str) -> None:
    golden = Golden(folder, "cnniqa")
    save_file(golden.network(f"{net}_net"), tmp_path / "net.safetensors")
    scorer = PreciseCNNIQA(tmp_path / "net.safetensors")
    met = 0
    for name, pixels in golden.images(f"{net}_score"):
        np.testing.assert_array_equal(rounded_luma(pixels)[0].numpy(), golden.arrays[f"{name}/grey"])
        golden.close(scorer.raw(pixels), f"{name}/{net}_score")
        met += 1
    assert met > 0


def test_patches_are_cut_and_normalised_alike(folder: Path) -> None:
    golden = Golden(folder, "cnniqa")
    for name, pixels in golden.images("patch_count"):
        patches = grey_patches(rounded_luma(pixels).double() / 255)[0]
        assert len(patches) == golden.arrays[f"{name}/patch_count"]
        normalised = locally_normalised(patches)
        if f"{name}/normalised_patches" in golden.arrays:
            golden.close(normalised, f"{name}/normalised_patches")
        else:
            golden.close(normalised[0], f"{name}/normalised_patch_first")


@pytest.mark.parametrize(("expected", "as_published"), [("", False), ("_input_minus1_1", True)])
@pytest.mark.parametrize("form", ["safetensors", "released"])
def test_cnniqa_of_colour_images(folder: Path, tmp_path: Path, form: str, expected: str, as_published: bool) -> None:
    """The released file holds the state dict under ``params``, in PyTorch's format."""
    golden, file = Golden(folder, "cnniqa"), tmp_path / "net.safetensors"
    if form == "released":
        file = tmp_path / "CNNIQA_koniq10k-00000000.pth"
        torch.save({"params": golden.network("colour_net")}, file)
    else:
        save_file(golden.network("colour_net"), file)
    scorer = PreciseCNNIQA(file, "koniq", as_published)
    met = 0
    for name, pixels in golden.images(f"colour_score{expected}"):
        golden.close(scorer.raw(pixels), f"{name}/colour_score{expected}")
        met += 1
    assert met > 0
