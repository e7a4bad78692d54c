"""Templates against a loop over them, cosines of pairs, and what is refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facelab.errors import ConfigError, DataError
from facelab.quality.card import ScorerCard
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics import template_scores, templates
from facelab.test_protocol.metrics.template_scores import pair_cosines
from facelab.test_protocol.metrics.templates import FeatureRules, Grouping, Weighting, image_weights, join_templates

RANDOM = np.random.default_rng(3)
IMAGES, TEMPLATES = 60, 9
VALUES, FLIPPED = (RANDOM.normal(size=(IMAGES, 6)).astype(np.float32) for _ in range(2))
SCORES, QUALITY = (RANDOM.uniform(0.1, 1.0, IMAGES).astype(np.float32) for _ in range(2))
GROUPS = Grouping(
    np.concatenate((np.arange(TEMPLATES), RANDOM.integers(0, TEMPLATES, IMAGES - TEMPLATES))),
    RANDOM.integers(100, 104, IMAGES),  # the same media number in several templates
    TEMPLATES,
)


def plain_templates(rules: FeatureRules, skipped: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A loop over templates and media, as published evaluators have it."""
    features = VALUES.astype(np.float64) + (FLIPPED if rules.flip else 0.0)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not rules.norm_score:
        features /= norms
    if rules.detector_score:
        features *= SCORES[:, None]
    features *= {"none": np.ones((IMAGES, 1)), "norm": norms, "quality": QUALITY[:, None]}[rules.weighting]
    result = np.zeros((TEMPLATES, 6))
    for template in range(TEMPLATES):
        rows = (GROUPS.template == template) & ~skipped
        for media in np.unique(GROUPS.media[rows]):
            result[template] += features[rows & (GROUPS.media == media)].mean(axis=0)
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("detector", [True, False])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("weighting", templates.WEIGHTINGS)
def test_equals_a_loop(
    norm: bool, detector: bool, flip: bool, weighting: Weighting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "BLOCK", 7)
    rules = FeatureRules(norm, detector, flip, weighting)
    skipped = np.arange(IMAGES) % 5 == 1
    skipped[GROUPS.template == 4] = True
    for left_out in (None, skipped):
        found = join_templates(Embeddings(VALUES, FLIPPED, QUALITY, left_out), GROUPS, rules, SCORES)
        expected = plain_templates(rules, np.zeros(IMAGES, bool) if left_out is None else left_out)
        np.testing.assert_allclose(found.values, expected, atol=2e-6)
        assert found.values.dtype == np.float32
        assert np.flatnonzero(found.empty).tolist() == ([] if left_out is None else [4])


def test_frames_of_one_video_count_once() -> None:
    values = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    rules = FeatureRules(detector_score=False, flip=False)
    found = join_templates(Embeddings(values), Grouping(np.zeros(4, np.int64), np.array([7, 7, 7, 8]), 1), rules)
    np.testing.assert_allclose(found.values, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_an_image_of_zeros_gives_zeros() -> None:
    rules = FeatureRules(norm_score=False, detector_score=False, flip=False)
    one = Grouping(np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
    assert join_templates(Embeddings(np.zeros((1, 3), np.float32)), one, rules).values.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("pairs", [5, 400, 5000])
def test_cosines(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pairs are computed one by one, many by blocks; both give the same."""
    monkeypatch.setattr(template_scores, "BLOCK_SCORES", 1000)
    monkeypatch.setattr(template_scores, "BLOCK_PAIRS", 100)
    random = np.random.default_rng(pairs)
    values = random.normal(size=(300, 8)).astype(np.float32)
    left, right = (random.integers(0, 300, pairs).astype(np.int32) for _ in range(2))
    expected = [values[a] @ values[b] for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(pair_cosines(values, left, right), expected, atol=1e-5)


def embeddings(**more: Any) -> Embeddings:
    return Embeddings(VALUES, **{"flipped": FLIPPED, **more})


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="weighting is 'qualty'.* Did you mean 'quality'"):
        FeatureRules(weighting="qualty")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="detector_score is on, but there are no detector scores"):
        image_weights(embeddings(), FeatureRules())
    with pytest.raises(DataError, match="flip is on, but there are no embeddings of the mirrored images"):
        image_weights(Embeddings(VALUES), FeatureRules(), SCORES)
    quality = FeatureRules(detector_score=False, weighting="quality")
    with pytest.raises(ConfigError, match="the images have no quality scores"):
        image_weights(embeddings(), quality)
    card = ScorerCard(name="BRISQUE", higher_is_better=False)
    with pytest.raises(ConfigError, match="a high score of BRISQUE means a bad image"):
        image_weights(embeddings(quality_scores=QUALITY, scorer=card), quality)
    for bad in (-1.0, np.nan):
        wrong = QUALITY.copy()
        wrong[5] = bad
        with pytest.raises(DataError, match=rf"the quality score of image 5 \(from 0\) is {bad:g}"):
            image_weights(embeddings(quality_scores=wrong), quality)
        skipped = np.arange(IMAGES) == 5
        assert image_weights(embeddings(quality_scores=wrong, skipped=skipped), quality).shape == (IMAGES,)
    values = VALUES.copy()
    values[9, 2] = np.inf
    with pytest.raises(DataError, match=r"image 9 \(from 0\) is not finite"):
        image_weights(Embeddings(values, FLIPPED), FeatureRules(), SCORES)
    monkeypatch.setattr(templates, "BLOCK", 4)
    with pytest.raises(DataError, match=r"image 9 \(from 0\) is not finite"):
        image_weights(Embeddings(values, FLIPPED), FeatureRules(), SCORES)
    assert image_weights(embeddings(quality_scores=np.zeros(IMAGES, np.float32)), quality).tolist() == [0.0] * IMAGES
