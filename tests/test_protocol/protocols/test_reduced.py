"""Every protocol takes resolutions and degradations: in one pass, with the numbers of the reduced images alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.sources.degradation import Degradation, DegradedImages
from facelab.data.synthetic.source import LowResolution
from facelab.errors import ConfigError
from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.protocols.reduced import Reduced, Reductions, open_protocol
from facelab.test_protocol.run import run_protocols
from facelab.test_protocol.statistics.metric_draws import parts_of


def lfw(paths: tuple[Path, Path], **options: Any) -> dict[str, dict[str, Any]]:
    return {"LFW": {"root": str(paths[0]), "pairs": str(paths[1]), "flip": True, **options}}


def test_numbers_are_those_of_the_reduced_images_alone(
    small_lfw: tuple[Path, Path], make_net: Callable[..., Any]
) -> None:
    net, plain = make_net(16).eval(), open_protocol(lfw(small_lfw))
    degradation = {"sizes": [4, 6], "noise": [0, 20]}
    both = open_protocol(lfw(small_lfw, resolution=[8, 4], degradation=degradation, degradation_seed=5))
    assert isinstance(both, Reduced)
    (report,) = run_protocols(net, [("LFW", both)])
    values = {metric.name: metric.value for metric in report.metrics}
    forms = {
        "": plain.images,
        "@8px": LowResolution(plain.images, 8),
        "@4px": LowResolution(plain.images, 4),
        "@degraded": DegradedImages(plain.images, Degradation((4, 6), noise=(0, 20)), 5),
    }
    for suffix, images in forms.items():
        alone = plain.evaluate(embed(net, images, flip=True))
        for metric in alone.metrics:
            if suffix == "" or metric.better is not None:
                assert values[f"{metric.name}{suffix}"] == pytest.approx(metric.value, abs=1e-6), metric.name
        np.testing.assert_allclose(report.trials[f"score{suffix}"], alone.trials["score"], atol=1e-6)
    assert report.headline.name == "accuracy"
    assert "same pairs@8px" not in values
    assert report.options["resolution"] == [8, 4]
    assert report.options["degradation"]["sizes"] == [4, 6]
    assert set(parts_of(report)) >= {"@8px", "@4px", "@degraded"}
    names = [both.images.name(row) for row in range(len(both.images))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("changed", ["same", "left", "right"])
def test_scores_of_other_pairs_do_not_go_with_the_trials(
    changed: str, small_lfw: tuple[Path, Path], make_net: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = open_protocol(lfw(small_lfw, resolution=8))
    assert isinstance(reduced, Reduced)
    embeddings = embed(make_net(16).eval(), reduced.images, flip=True)
    assert "score@8px" in reduced.evaluate(embeddings).trials
    evaluate, calls = reduced.protocol.evaluate, []

    def of_other_pairs(part: Embeddings) -> Report:
        calls.append(part)
        report = evaluate(part)
        trials = {**report.trials, changed: report.trials[changed][::-1]}
        return report if len(calls) == 1 else replace(report, trials=trials)

    monkeypatch.setattr(reduced.protocol, "evaluate", of_other_pairs)
    assert "score@8px" not in reduced.evaluate(embeddings).trials


def test_one_number_is_a_resolution_and_none_is_the_protocol_itself(small_lfw: tuple[Path, Path]) -> None:
    one = open_protocol(lfw(small_lfw, resolution=8))
    assert isinstance(one, Reduced)
    assert one.suffixes == ("@8px",)
    assert type(open_protocol(lfw(small_lfw))).__name__ == "LFW"


def test_a_protocol_with_resolutions_of_its_own_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    options = {"identities": 4, "per_identity": 2, "folds": 2, "pairs": 8, "size": 32, "resolution": [16]}
    assert not isinstance(open_protocol({"SyntheticPairs": options}), Reduced)
    degraded = open_protocol({"SyntheticPairs": {**options, "degradation": {"sizes": [4, 6]}}})
    assert isinstance(degraded, Reduced)
    assert degraded.suffixes == ("@degraded",)


@pytest.mark.parametrize("shape", [(16, 24, 3), (24, 16, 3)])
def test_the_shorter_side_bounds_resolutions(shape: tuple[int, ...], make_images: Callable[..., Any]) -> None:
    images = make_images([np.zeros(shape, np.uint8)])
    assert Reductions(resolution=15).images(images).keys() == {"@15px"}
    with pytest.raises(ConfigError, match="resolution is 16, but the images have 16 pixels a side"):
        Reductions(resolution=16).images(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": [1]}, "resolution"),
        ({"resolution": [16]}, "resolution is 16, but the images have 16 pixels a side"),
        ({"resolution": [8, 8]}, r"resolution is \[8, 8\], in which one stands twice"),
        ({"resolution": "low"}, "the options of protocol 'LFW': 'resolution"),
        ({"degradation": {"size": [4, 6]}}, "the options of protocol 'LFW': 'degradation"),
        ({"degradation": {"sizes": [6, 4]}}, r"degradation sizes is \[6, 4\]; write the lesser value first"),
        ({"resolutoin": [8]}, "protocol 'LFW' has no option 'resolutoin'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str, small_lfw: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        open_protocol(lfw(small_lfw, **options))
