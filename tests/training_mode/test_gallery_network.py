"""Modes with a gallery network: which settings they refuse, and with what reason."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from facelab.errors import ConfigError
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
PAIRS = "data.sampler={ClassBalanced: {images_per_class: 2}}"
QUEUE, POOL = "classifier={PrototypeQueue: {size: 8}}", "classifier={ClassPool: {fraction: 1.0}}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mode=semi_siamese", QUEUE], "semi_siamese needs pairs: .*ClassBalanced: {images_per_class: 2}"),
        (["mode=class_pool", POOL, "training.batch_size=9"], "class_pool needs pairs: .*PairsAndInstances"),
        (["mode=class_pool", POOL, "data.sampler=Sequential", "training.batch_size=3"], "class_pool needs pairs"),
        (
            ["mode=semi_siamese", PAIRS],
            "this mode learns from stored features of .*FullSoftmax stores none; set",
        ),
        (["mode=class_pool", PAIRS], "this mode learns from stored features .* FullSoftmax stores none"),
        (
            [POOL],
            "ClassPool stores features of a gallery network, and this mode has none; choose mode",
        ),
        (
            ["mode=class_pool", PAIRS, "classifier=ClassPool"],
            "1 features, .* 8 images at once; raise .*ClassPool.fraction",
        ),
        (
            ["mode=semi_siamese", PAIRS, "classifier={PrototypeQueue: {size: 7}}"],
            "room for 7 .* raise classifier.PrototypeQueue.size",
        ),
        (["mode={semi_siamese: {decay: 1}}", PAIRS, QUEUE], r"mode: decay is 1.0, but must lie in \[0, 1\)"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        assemble(load_config(TINY, words))


def test_a_pool_learns_from_pairs_of_one_person_alone_too() -> None:
    parts = assemble(load_config(TINY, ["mode=class_pool", POOL, PAIRS]))
    output = parts.mode.step(next(iter(parts.feed.batches(0, 0))))
    assert float(output.metrics["in_pool"]) == 1.0


@pytest.mark.parametrize("words", [["mode=semi_siamese", QUEUE.replace("8", "16")], ["mode=class_pool", POOL]])
def test_the_gallery_network_is_given_what_the_probe_is(words: list[str]) -> None:
    parts = assemble(load_config(TINY, [*words, PAIRS]))
    batch = next(iter(parts.feed.batches(0, 0)))
    batch = replace(batch, quality=torch.rand(batch.size))
    given: dict[str, tuple[Tensor, ...]] = {}
    for name, network in parts.mode.networks().items():

        def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
            given[name] = inputs
            return inputs[:1]  # this network has no use for scores

        network.register_forward_pre_hook(note)
        network.needs_quality = True  # type: ignore[assignment]
    parts.mode.step(batch)
    assert given.keys() == {"network", "gallery"}
    for probe, gallery in zip(given["network"], given["gallery"], strict=True):
        assert probe.equal(gallery)
    assert batch.quality is not None
    assert given["gallery"][1].equal(batch.quality)
