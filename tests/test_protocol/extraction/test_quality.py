"""Quality scores reach the networks that take them, row by row, and the protocols."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard
from facelab.quality.table import QualityScores, write_scores
from facelab.test_protocol.base import Embeddings, Metric, Protocol, Report
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.extraction.quality import open_scores
from facelab.test_protocol.run import run_protocols

CARD = ScorerCard(name="Sharpness", version="1", low=0.0, higher_is_better=False)


class Weighted(nn.Module):
    """Its embedding is the quality and the brightness of the left half of an image."""

    input_spec = InputSpec(16, 16, mean=0.0, std=1.0)
    needs_quality = True

    def forward(self, image: Tensor, quality: Tensor) -> Tensor:
        assert quality.shape == image.shape[:1]
        assert quality.dtype == torch.float32
        return torch.stack([quality, image[..., :8].mean(dim=(1, 2, 3))], dim=1)


class Everything(Protocol):
    """Reports what it was given."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.flip = True
        self.seen: list[Embeddings] = []

    def evaluate(self, embeddings: Embeddings) -> Report:
        self.seen.append(embeddings)
        return Report("x", (Metric("mean", float(embeddings.values.mean()), unit="score"),), {"flip": True})


@pytest.fixture
def scores() -> QualityScores:
    return QualityScores(np.arange(11, dtype=np.float32) + 0.5, CARD, "t")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_each_image_gets_its_own_score_and_a_mirrored_one_the_same(
    tiny_images: Any, scores: QualityScores, batch_size: int
) -> None:
    result = embed(Weighted(), tiny_images, batch_size=batch_size, flip=True, quality=scores)
    np.testing.assert_array_equal(result.values[:, 0], scores.values)
    assert result.flipped is not None
    np.testing.assert_array_equal(result.flipped[:, 0], scores.values)
    assert np.abs(result.flipped[:, 1] - result.values[:, 1]).min() > 0
    assert result.quality_scores is scores.values
    assert result.quality is not None
    np.testing.assert_array_equal(result.quality, -scores.values)  # lower is better
    np.testing.assert_array_equal(result.part(slice(3, 5)).quality_scores, [3.5, 4.5])


def test_threads_share_images_and_scores_alike(tiny_images: Any, make_images: Any) -> None:
    images = make_images(tiny_images.pixels * 4)
    scores = QualityScores(np.arange(44, dtype=np.float32), CARD)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        result = embed(Weighted(), images, batch_size=40, quality=scores)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(result.values[:, 0], scores.values)


def test_other_networks_do_not_see_scores_but_protocols_do(
    tiny_net: Any, tiny_images: Any, scores: QualityScores
) -> None:
    plain, scored = embed(tiny_net, tiny_images), embed(tiny_net, tiny_images, quality=scores)
    np.testing.assert_array_equal(plain.values, scored.values)
    assert plain.quality_scores is None
    assert scored.scorer == CARD


def test_a_network_that_needs_scores_refuses_to_start_without(tiny_images: Any) -> None:
    with pytest.raises(ConfigError, match=r"Weighted takes a quality score of each image.*`facelab iqa score DATA`"):
        embed(Weighted(), tiny_images)
    with pytest.raises(ConfigError, match="--quality TABLE"):
        open_scores([("x", Everything(tiny_images))], {}, Weighted())


def test_missing_scores_name_the_image(tiny_images: Any, scores: QualityScores) -> None:
    scores.values[4] = np.nan
    with pytest.raises(DataError, match=r"array\[4\]: the image has no quality score"):
        embed(Weighted(), tiny_images, quality=scores)
    with pytest.raises(DataError, match=r"array\[4\]: the image has no quality score"):
        embed(Weighted(), tiny_images, quality=scores, on_corrupt="skip")  # because this one can be read
    with pytest.raises(DataError, match="11 quality scores for 3 images"):
        embed(Weighted(), type(tiny_images)(tiny_images.pixels[:3]), quality=scores, on_corrupt="skip")


def test_what_cannot_be_read_needs_no_score(tiny_images: Any, make_images: Any, scores: QualityScores) -> None:
    scores.values[4] = np.nan
    result = embed(Weighted(), make_images(tiny_images.pixels, {4}), quality=scores, on_corrupt="skip")
    assert result.values[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 0.0, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5]


def test_the_cache_knows_the_scores(tiny_images: Any, scores: QualityScores, tmp_path: Path) -> None:
    embed(Weighted(), tiny_images, quality=scores, cache=tmp_path)
    other = QualityScores(scores.values + 1, CARD)
    np.testing.assert_array_equal(
        embed(Weighted(), tiny_images, quality=other, cache=tmp_path).values[:, 0], other.values
    )


def test_a_report_says_where_its_scores_come_from(tiny_images: Any, tmp_path: Path, scores: QualityScores) -> None:
    write_scores(tmp_path / "q.csv", tiny_images, scores.values, CARD)
    protocols = [("faces", Everything(tiny_images))]
    found = open_scores(protocols, {"faces": tmp_path / "q.csv"}, Weighted())
    (report,) = run_protocols(Weighted(), protocols, quality=found)
    assert report.options["quality"] == {"scorer": "Sharpness", "version": "1", "table": found["faces"].table}
    assert len(found["faces"].table) == 32
    assert protocols[0][1].seen[0].values[:, 0].tolist() == scores.values.tolist()


def test_a_table_for_no_protocol_is_answered_with_the_right_name(tiny_images: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'facse', but no such protocol\. Did you mean 'faces'"):
        open_scores([("faces", Everything(tiny_images))], {"facse": tmp_path / "q.csv"})


def test_an_incomplete_table_is_refused_before_anything_is_embedded(
    tiny_images: Any, tmp_path: Path, scores: QualityScores
) -> None:
    scores.values[4] = np.nan
    write_scores(tmp_path / "q.csv", tiny_images, scores.values, CARD)
    protocols, tables = [("faces", Everything(tiny_images))], {"faces": tmp_path / "q.csv"}
    with pytest.raises(DataError, match=r"array\[4\]: the image has no quality score"):
        open_scores(protocols, tables)
    assert np.isnan(open_scores(protocols, tables, complete=False)["faces"].values[4])


def test_failed_images_stand_in_the_report(tiny_images: Any, make_images: Any, tiny_net: Any) -> None:
    from facelab.test_protocol.extraction.failed_images import failure_warning

    images = make_images(tiny_images.pixels * 4, set(range(3, 30)))
    (report,) = run_protocols(tiny_net, [("faces", Everything(images))], on_corrupt="skip")
    assert report.options["on_corrupt"] == "skip"
    assert report.options["failed_images"] == {"count": 27, "first": [f"array[{row}]" for row in range(3, 23)]}
    warning = failure_warning(report)
    assert warning == "faces: 27 of 44 images could not be read, they were left out: array[3], array[4], array[5], …"
    (clean,) = run_protocols(tiny_net, [("faces", Everything(tiny_images))])
    assert "failed_images" not in clean.options
    assert failure_warning(clean) is None
