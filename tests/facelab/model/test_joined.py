"""Several models as one: their cosines' mean, each with the input that it wants."""

from typing import Any

import numpy as np
import pytest
import torch

import facelab
from facelab.errors import ConfigError
from facelab.model.face_model import FaceModel
from facelab.model.joined import joined_model

CPU = torch.device("cpu")
HALF = {"height": 30, "width": 64, "face_height": 64, "colour": "BGR", "std": 128.0}


def model(name: str, **spec: Any) -> FaceModel:
    network = facelab.create_model(
        "MobileFaceNet", width=0.25, feat_dim=16, input_spec={"height": 64, "width": 64} | spec
    )
    return FaceModel(network, name, {}, CPU)


@pytest.fixture
def faces() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)


def test_cosines_are_the_mean_of_the_models(faces: np.ndarray) -> None:  # type: ignore[type-arg]
    models = [model("whole"), model("upper", **HALF)]
    joined = joined_model(models)
    assert (joined.name, joined.feat_dim, joined.input_spec.aligned) == ("whole + upper", 32, (64, 64))
    single = [one.embed(faces) for one in models]
    together = joined.embed(faces)
    np.testing.assert_allclose(together @ together.T, np.mean([one @ one.T for one in single], axis=0), atol=1e-5)
    np.testing.assert_allclose(together[:, :16] * np.sqrt(2), single[0], atol=1e-5)


def test_refusals(faces: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match="there is 1; name two runs or more"):
        joined_model([model("one")])
    with pytest.raises(ConfigError, match="but these take 'a' 64x64, 'b' 48x64"):
        joined_model([model("a"), model("b", height=48)])
    gated = model("gated")
    gated.network.needs_quality = True
    with pytest.raises(ConfigError, match="'gated' takes quality scores"):
        joined_model([model("a"), gated])
