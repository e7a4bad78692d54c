"""Reports that were not measured alike are told apart by name."""

from typing import Any

from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.differing_conditions import conditions_warning, differing_conditions
from facelab.test_protocol.extraction_settings import ExtractionSettings


def report(**options: Any) -> Report:
    return Report("LFW", (Metric("accuracy", 0.9),), options)


def test_equal_conditions_differ_in_nothing() -> None:
    same = report(alignment="a", flip=True, pairs=6000)
    assert differing_conditions([same, same, report(alignment="a", flip=True, pairs=600)]) == {}
    assert differing_conditions([]) == {}
    assert conditions_warning({"r50": same, "r100": same}) is None


def test_what_differs_is_named_with_its_values() -> None:
    reports = {"r50": report(alignment="ArcFace", flip=True), "r100": report(alignment="unknown")}
    assert differing_conditions(list(reports.values())) == {
        "alignment": ("ArcFace", "unknown"),
        "flip": (True, None),
    }
    assert conditions_warning(reports) == (
        "LFW: not tested alike, so the numbers may not be comparable; what differs: "
        "alignment (r50: ArcFace, r100: unknown); flip (r50: True, r100: not said)."
    )


def test_the_preprocessing_hash_follows_each_of_its_parts(tiny_net: Any, tiny_images: Any) -> None:
    import torch

    from facelab.inputs import InputSpec

    cpu, images = torch.device("cpu"), tiny_images

    def of(spec: InputSpec = InputSpec(16, 16), **settings: Any) -> str:  # noqa: B008
        tiny_net.input_spec = spec
        return ExtractionSettings(**{"device": cpu, **settings}).preprocessing(tiny_net, images)

    hashes = [
        of(),
        of(flip=True),
        of(resize=True),
        of(precision="bf16"),
        of(device=torch.device("meta")),
        of(InputSpec(16, 16, "BGR")),
        of(InputSpec(16, 16, std=128.0)),
        of(InputSpec(16, 16, mean=0.0)),
        of(InputSpec(16, 12)),
    ]
    images.alignment = "ArcFace scaled 112"
    hashes.append(of())
    assert len(set(hashes)) == len(hashes)
    images.alignment = "unknown"
    assert of(batch_size=7, workers=3, on_corrupt="zero", channels_last=False) == hashes[0]
    assert {len(value) for value in hashes} == {32}
