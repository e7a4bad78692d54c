"""The comparison of TransFace's parts: every arm builds, two that are not of the toolkit do what they say."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.run.assembly import assemble
from facelab.run.settings import make_config
from facelab.test_protocol.base import PROTOCOLS
from facelab.training_mode.base import MODES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    """The program, whose mode and protocol are known to the tests of this file only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        for registry in (MODES, PROTOCOLS):
            registry.names()
            patch.setattr(registry, "_classes", dict(registry._classes))
        yield importlib.import_module("transface")


def test_every_arm_gives_a_loss(program: ModuleType) -> None:
    data = {"source": {"SyntheticFaces": {"identities": 8, "per_identity": 8}}, "size": 64, "workers": 1}
    for name, arm in program.arms().items():
        merged = {**arm, "data": {**data, **arm.get("data", {})}, "training": {"batch_size": 48}}
        parts = assemble(make_config(merged, name))
        output = parts.mode.step(next(iter(parts.feed.batches(0, 0))))
        assert bool(output.loss.isfinite()), name


def test_mixed_images_have_the_shares_of_their_labels(program: ModuleType) -> None:
    image = torch.stack([torch.zeros(3, 10, 10), torch.full((3, 10, 10), 200)]).to(torch.uint8)
    partner, draw = torch.tensor([1, 0]), Draws(draws_of_batch(0, 0, 0, np.arange(2)), "mixed")
    mixed, _ = program._mixup(image, partner, torch.tensor([0.25, 0.0]))
    assert mixed[:, 0, 0, 0].tolist() == [50, 200]
    cut, area = program._cutmix(image, partner, draw, np.array([0.25, 0.0]))
    torch.testing.assert_close(cut[0].float().mean() / 200, area[0])
    torch.testing.assert_close(area, torch.tensor([0.25, 0.0]))
    assert torch.equal(cut[1], image[1])


def test_the_upper_half_is_covered(program: ModuleType) -> None:
    source = build(SOURCES, {"SyntheticFaces": {"identities": 2, "per_identity": 1}}, size=16)
    pixels = program.Covered(source).read(0)
    assert (pixels[:8] == program.GREY).all()
    assert np.array_equal(pixels[8:], source.read(0)[8:])
