"""Every protocol takes resolutions and degradations: in one pass, with the numbers of the reduced images alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.data.alignment.regions import REGIONS
from facelab.data.sources.degradation import Degradation, DegradedImages
from facelab.data.sources.occluded import OccludedImages, Occluder
from facelab.data.synthetic.source import LowResolution
from facelab.errors import ConfigError
from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.metrics.pair_scores import unit
from facelab.test_protocol.protocols.lfw import LFW
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
    occlude = {"regions": ["nose", "left_face"], "fill": "noise", "seed": 3}
    both = open_protocol(
        lfw(small_lfw, resolution=[8, 4], degradation=degradation, degradation_seed=5, occlude=occlude)
    )
    assert isinstance(both, Reduced)
    (report,) = run_protocols(net, [("LFW", both)])
    values = {metric.name: metric.value for metric in report.metrics}
    forms = {
        "": plain.images,
        "@8px": LowResolution(plain.images, 8),
        "@4px": LowResolution(plain.images, 4),
        "@degraded": DegradedImages(plain.images, Degradation((4, 6), noise=(0, 20)), 5),
        "@nose": OccludedImages(plain.images, Occluder("nose", "noise", 3)),
        "@left_face": OccludedImages(plain.images, Occluder("left_face", "noise", 3)),
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
    assert report.options["occlude"]["regions"] == ["nose", "left_face"]
    assert set(parts_of(report)) >= {"@8px", "@4px", "@degraded", "@nose", "@left_face"}
    for name in ("accuracy", "EER"):
        assert values[f"{name}@occluded"] == pytest.approx((values[f"{name}@nose"] + values[f"{name}@left_face"]) / 2)
    names = [both.images.name(row) for row in range(len(both.images))]
    assert len(set(names)) == len(names)


def test_second_images_alone_are_covered(small_lfw: tuple[Path, Path], make_net: Callable[..., Any]) -> None:
    """Scores are those of a clean first and a covered second image, and the people stay who they are."""
    probed = open_protocol(lfw(small_lfw, occlude={"regions": "all", "side": "probe"}))
    plain, net = open_protocol(lfw(small_lfw)), make_net(16).eval()
    assert isinstance(plain, LFW)
    (report,) = run_protocols(net, [("LFW", probed)])
    clean = embed(net, plain.images, flip=True)
    covered = embed(net, OccludedImages(plain.images, Occluder("mouth")), flip=True)
    left, right = (
        unit((one.values + one.flipped)[rows]) for one, rows in zip((clean, covered), plain.pairs.T, strict=True)
    )
    np.testing.assert_allclose(report.trials["score@mouth"], (left * right).sum(axis=1), atol=1e-6)
    assert set(parts_of(report)) == {f"@{region}" for region in REGIONS}
    np.testing.assert_allclose(report.trials["score"], plain.evaluate(clean).trials["score"], atol=1e-6)


def test_probes_alone_are_covered_in_a_search(tmp_path: Path, make_net: Callable[..., Any]) -> None:
    """A probe that is the gallery's image finds it; covered, it is found only where the gallery is covered too."""
    random = np.random.default_rng(0)
    sides = {"gallery": [], "probe": []}  # type: dict[str, list[str]]
    for person in range(8):
        face = np.full((16, 16, 3), 128) + np.kron(random.integers(-9, 10, (4, 4, 3)), np.ones((4, 4, 1)))
        for side, lines in sides.items():
            cv2.imwrite(str(tmp_path / f"{side}{person}.png"), face.astype(np.uint8))
            lines.append(f"{side}{person}.png person{person}")
    for side, lines in sides.items():
        (tmp_path / f"{side}.txt").write_text("\n".join(lines))
    files = {"root": str(tmp_path), "gallery": str(tmp_path / "gallery.txt"), "probe": str(tmp_path / "probe.txt")}
    rates = {}
    for side in ("both", "probe"):
        occlude = {"regions": ["left_face"], "fill": 255, "side": side}
        protocol = open_protocol({"GalleryProbe": {**files, "ranks": [1], "occlude": occlude}})
        (report,) = run_protocols(make_net(16).eval(), [("GalleryProbe", protocol)])
        rates[side] = {metric.name: metric.value for metric in report.metrics}
        assert rates[side]["rank-1"] == 1.0
        assert "gallery templates@left_face" not in rates[side]
    assert rates["both"]["rank-1@left_face"] == 1.0
    assert rates["probe"]["rank-1@left_face"] < 0.6  # type: ignore[operator]


def test_a_mean_needs_a_value_of_every_region(small_lfw: tuple[Path, Path], make_net: Callable[..., Any]) -> None:
    covered = open_protocol(lfw(small_lfw, occlude=["nose", "mouth"], fars=[1e-9]))
    (report,) = run_protocols(make_net(16).eval(), [("LFW", covered)])
    (mean,) = (metric for metric in report.metrics if metric.name == "TAR@FAR=1e-9@occluded")
    assert (mean.value, mean.note) == (None, "cannot be measured: a region has no value")


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
    of_regions = {name: open_protocol(lfw(small_lfw, occlude=name)) for name in ("all", "nose")}
    assert [len(protocol.suffixes) for protocol in of_regions.values()] == [9, 1]  # type: ignore[attr-defined]


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
        ({"occlude": "chin"}, "the options of protocol 'LFW': 'occlude.0' is 'chin': Input should be 'left_eye'"),
        ({"occlude": {"regions": "all", "fill": "hands"}}, "fill of occlusions is 'hands'"),
        ({"occlude": ["nose", "nose"]}, r"occlude is \['nose', 'nose'\], in which one stands twice"),
        ({"occlude": []}, "the options of protocol 'LFW': 'occlude' is \\[\\]"),
        ({"occlude": {"fill": "noise"}}, "'occlude.regions' is missing"),
        ({"degradation": {"size": [4, 6]}}, "the options of protocol 'LFW': 'degradation"),
        ({"degradation": {"sizes": [6, 4]}}, r"degradation sizes is \[6, 4\]; write the lesser value first"),
        ({"resolutoin": [8]}, "protocol 'LFW' has no option 'resolutoin'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str, small_lfw: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        open_protocol(lfw(small_lfw, **options))


def test_probes_that_are_not_told_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    options = {"identities": 4, "per_identity": 2, "folds": 2, "pairs": 8, "size": 32}
    message = "SyntheticPairs cannot have probes alone changed, .*leave side out, or set side: both"
    with pytest.raises(ConfigError, match=message):
        open_protocol({"SyntheticPairs": {**options, "occlude": {"regions": "nose", "side": "probe"}}})
