"""Mean quality falls step by step when faces are blurred, reduced, compressed or made noisy, where it is said to."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from facelab.iqa.base import PixelScorer
from facelab.iqa.brisque import BRISQUE
from facelab.iqa.cnniqa import CNNIQA
from facelab.iqa.effective_resolution import EffectiveResolution
from facelab.iqa.feature_norm import FeatureNorm
from facelab.iqa.sharpness import Sharpness
from facelab.model.face_model import load_backbone

Pixels = NDArray[np.uint8]
Faces = list[Pixels]
Degrade = dict[str, Callable[[Pixels, float], Pixels]]

# What is promised in docs/quality.md: sigma of the blur, factor of the reduction, JPEG quality, sigma of the noise.
STEPS: dict[str, dict[str, tuple[float, ...]]] = {
    "BRISQUE": {"blur": (1, 2, 3, 4), "reduce": (2, 3, 4, 6), "jpeg": (30, 20, 10, 5), "noise": (20, 35, 50)},
    "CNNIQA": {"blur": (1, 2, 3, 4), "reduce": (2, 3, 4, 6), "jpeg": (30, 20, 10, 5), "noise": (20, 35, 50)},
    "Sharpness": {
        "blur": (0.5, 1, 2, 3, 4),
        "reduce": (1.5, 2, 3, 4, 6, 8),
        "jpeg": (60, 50, 40, 30, 20, 10, 5),
        "noise": (3, 6, 12, 20, 35, 50),
    },
    "EffectiveResolution": {
        "blur": (0.5, 1, 2, 3, 4),
        "reduce": (1.5, 2, 3, 4, 6, 8),
        "jpeg": (30, 20, 10),
        "noise": (3, 6, 12, 20, 35, 50),
    },
}
WITHOUT_FILES = ("BRISQUE", "Sharpness", "EffectiveResolution")
needs_brisque = pytest.mark.skipif(find_spec("brisque") is None, reason="BRISQUE needs the package brisque")


def scorer(name: str, shared_root: Path | None = None) -> PixelScorer:
    if name == "BRISQUE":
        return BRISQUE()
    if name == "CNNIQA" and shared_root is not None:
        return CNNIQA(shared_root / "data" / "weights" / "cnniqa_live.safetensors")
    return {"Sharpness": Sharpness, "EffectiveResolution": EffectiveResolution}[name]()


def quality(scorer: PixelScorer, faces: Faces) -> float:
    sign = 1 if scorer.card.higher_is_better else -1
    return sign * float(scorer.score(torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)).mean())


def falls(scorer: PixelScorer, faces: Faces, kind: str, degrade: Degrade) -> None:
    levels = [
        quality(scorer, [degrade[kind](face, level) for face in faces]) for level in STEPS[scorer.card.name][kind]
    ]
    steps = np.diff([quality(scorer, faces), *levels])
    assert (steps < 0).all(), f"{kind}: {steps}"


def cases(names: tuple[str, ...]) -> list[object]:
    return [
        pytest.param(name, kind, marks=needs_brisque if name == "BRISQUE" else ())
        for name in names
        for kind in STEPS[name]
    ]


@pytest.mark.parametrize(("name", "kind"), cases(WITHOUT_FILES))
def test_drawn_faces(name: str, kind: str, drawn_faces: Faces, degrade: Degrade) -> None:
    falls(scorer(name), drawn_faces, kind, degrade)


@pytest.mark.real
@pytest.mark.parametrize(("name", "kind"), cases(tuple(STEPS)))
def test_real_faces(name: str, kind: str, real_faces: Faces, shared_root: Path, degrade: Degrade) -> None:
    falls(scorer(name, shared_root), real_faces, kind, degrade)


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param("BRISQUE", marks=needs_brisque), "CNNIQA"])
def test_trained_scorers_like_a_little_noise(name: str, real_faces: Faces, shared_root: Path, degrade: Degrade) -> None:
    """As docs/quality.md warns."""
    judge = scorer(name, shared_root)
    assert quality(judge, [degrade["noise"](face, 3) for face in real_faces]) > quality(judge, real_faces)


@pytest.mark.real
def test_the_norm_of_a_network_that_was_not_trained_for_it_says_nothing(
    real_faces: Faces, shared_root: Path, degrade: Degrade
) -> None:
    """The exception in docs/quality.md: FeatureNorm of EdgeFace-XXS. Whoever trusts a norm has to look at it first."""
    weights = shared_root / "data" / "weights" / "edgeface_xxs.safetensors"
    judge = FeatureNorm(load_backbone("EdgeFace-XXS", weights, device="cpu").network)
    faces = real_faces[:16]
    whole = quality(judge, faces)
    for kind, level in (("blur", 2), ("reduce", 4), ("jpeg", 5)):
        assert quality(judge, [degrade[kind](face, level) for face in faces]) == pytest.approx(whole, rel=0.06)
