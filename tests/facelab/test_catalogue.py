import pytest

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build, catalogue_file, citation_of, entries, resolve
from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import CLASSIFIERS
from facelab.head.margins.cosface import CosFace


def test_an_entry_means_a_class_with_options() -> None:
    assert resolve(HEADS, "AM-Softmax") == ("CosFace", {"margin": 0.35, "scale": 32})


def test_inline_options_win_key_by_key() -> None:
    assert resolve(HEADS, {"AM-Softmax": {"margin": 0.2}}) == ("CosFace", {"margin": 0.2, "scale": 32})


def test_nested_options_are_merged() -> None:
    _, options = resolve(BACKBONES, {"MobileFaceNet": {"input_spec": {"height": 64, "width": 64}}})
    assert options["input_spec"] == {"height": 64, "width": 64, "colour": "BGR", "mean": 127.5, "std": 128}


def test_a_spec_builds() -> None:
    head = build(HEADS, {"CosFace": {"margin": 0.1}})
    assert isinstance(head, CosFace)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("Arcface", "unknown head 'Arcface'. Did you mean 'ArcFace'"),
        ("AM-Softmx", "Did you mean 'AM-Softmax'"),
        ({"ArcFace": {"marginarc": 0.1}}, "head 'ArcFace' has no option 'marginarc'. Did you mean 'margin'"),
        ({"ArcFace": {"margin": 9}}, "ArcFace margin is 9.0, but must lie in"),
        ({"ArcFace": 3}, "the options of head 'ArcFace' must be a mapping, got 3"),
        ({"ArcFace": {}, "CosFace": {}}, "a head is written as Name or"),
    ],
)
def test_refusals(spec: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(HEADS, spec)  # type: ignore[arg-type]


def test_an_entry_has_the_paper_of_its_class_or_one_of_its_own() -> None:
    cosface, sub_centers = citation_of(HEADS, "AM-Softmax"), citation_of(CLASSIFIERS, "SubCenter")
    assert cosface is not None
    assert sub_centers is not None
    assert (cosface.key, sub_centers.key) == ("wang2018cosface", "deng2020subcenter")
    assert citation_of(CLASSIFIERS, "FullSoftmax") is None


@pytest.mark.parametrize("registry", [HEADS, BACKBONES, CLASSIFIERS], ids=lambda registry: registry.kind)
def test_every_entry_names_a_registered_class_and_known_options(registry: object) -> None:
    for name, (registered, options) in entries(registry).items():  # type: ignore[arg-type]
        assert options.keys() <= registry.parameters(registered).keys(), name  # type: ignore[attr-defined]


def test_a_kind_without_a_catalogue_has_no_entries() -> None:
    assert catalogue_file("sampler") is None
