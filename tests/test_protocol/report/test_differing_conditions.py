"""Reports that were not measured alike are told apart by name."""

import re
from collections.abc import Mapping
from typing import Any

from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings
from facelab.test_protocol.report.differing_conditions import conditions_warnings, differing_conditions


def report(**options: Any) -> Report:
    return Report("LFW", (Metric("accuracy", 0.9),), options)


def warning(reports: Mapping[str, Report]) -> str:
    """The only warning of some reports on one protocol."""
    (said,) = conditions_warnings({"LFW": reports})
    return said


def test_equal_conditions_differ_in_nothing() -> None:
    same = report(alignment="a", flip=True, pairs=6000)
    assert differing_conditions([same, same, report(alignment="a", flip=True, pairs=600)]) == {}
    assert differing_conditions([]) == {}
    assert conditions_warnings({"LFW": {"r50": same, "r100": same}}) == []


def test_what_differs_is_named_with_its_values() -> None:
    reports = {"r50": report(alignment="ArcFace", flip=True), "r100": report(alignment="unknown")}
    assert differing_conditions(list(reports.values())) == {
        "alignment": ("ArcFace", "unknown"),
        "flip": (True, None),
    }
    assert warning(reports) == (
        "LFW: not tested alike, so the numbers may not be comparable; what differs: "
        "alignment (r50: ArcFace; r100: unknown), mirrored images (r50: yes; r100: not said)."
    )


def test_models_with_the_same_value_are_named_together() -> None:
    reports = {"r50": report(precision="fp32"), "r100": report(precision="bf16"), "swin": report(precision="fp32")}
    assert "precision (r50 and swin: fp32; r100: bf16)." in warning(reports)
    last = {"r50": reports["r50"], "swin": reports["swin"], "r100": reports["r100"]}
    assert "precision (r50 and swin: fp32; r100: bf16)." in warning(last)


def test_the_hash_of_the_preprocessing_is_named_only_where_nothing_else_says_what_differs() -> None:
    alone = {"r50": report(preprocessing="0" * 32), "r100": report(preprocessing="f" * 32)}
    assert "what differs: preprocessing (r50: 000" in warning(alone)
    told = {
        "r50": report(preprocessing="0" * 32, input="112x112 BGR, -1..1"),
        "r100": report(preprocessing="f" * 32, input="112x112 RGB, -1..1"),
    }
    assert warning(told).endswith("what differs: the network's input (r50: 112x112 BGR; r100: 112x112 RGB).")


def test_other_images_are_counted_and_their_hash_is_cut() -> None:
    parts = "+".join(["b" * 16] * 4)  # of a set that is joined
    reports = {"r50": report(image_set="a" * 64, images=7701), "r100": report(image_set=parts, images=12)}
    said = "what differs: the images (r50: 7,701 of list aaaaaaaa; r100: 12 of list bbbbbbbb)."
    assert warning(reports).endswith(said)


def test_of_listings_and_records_only_the_parts_that_differ_are_said() -> None:
    long = "five points of RetinaFace, similarity, 112x112, template ArcFace, detector "
    found = warning({"r50": report(alignment=long + "0123"), "r100": report(alignment=long + "4567")})
    assert "alignment (r50: detector 0123; r100: detector 4567)." in found
    scores = {"scorer": "Sharpness", "version": "a" * 64, "table": "b" * 32}
    found = warning({"frozen": report(), "lora": report(quality=scores), "dual": report(quality=scores)})
    assert "quality scores (frozen: none; lora and dual: scorer Sharpness, version aaaaaaaa, table bbbbbbbb)." in found
    found = warning({"lora": report(quality=scores), "dual": report(quality={**scores, "scorer": "BRISQUE"})})
    assert "quality scores (lora: scorer Sharpness; dual: scorer BRISQUE)." in found
    assert "alignment (a: x; b: x, y)." in warning({"a": report(alignment="x"), "b": report(alignment="x, y")})


def test_words_are_never_cut() -> None:
    words = [" ".join(f"{letter}word{n}" for n in range(40)) for letter in "ab"]
    said = warning({"a": report(alignment=words[0]), "b": report(alignment=words[1])})
    assert "b: bword0 bword1 " in said
    assert set(re.findall(r"bword\S*", said)) <= set(words[1].split())


def test_protocols_in_which_the_same_differs_share_a_sentence() -> None:
    differing = {"r50": report(precision="fp32"), "r100": report(precision="bf16")}
    found = conditions_warnings({"LFW": differing, "CFP-FP": differing, "RFW": {"r50": report()}, "CALFW": differing})
    assert len(found) == 1
    assert found[0].startswith("LFW, CFP-FP and CALFW: not tested alike")


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
