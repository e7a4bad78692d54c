"""The protocol that needs no data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError, FacelabError
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.run import run_protocols
from facelab.test_protocol.statistics.metric_draws import parts_of

OPTIONS = {"identities": 8, "per_identity": 3, "folds": 2, "pairs": 24, "size": 32}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))


def test_resolutions_add_metrics_to_one_report(make_net: Callable[..., Any]) -> None:
    protocol = PROTOCOLS.build("SyntheticPairs", {**OPTIONS, "resolution": [16, 8]})
    assert len(protocol.images) == 3 * 24
    assert "at 8 pixels" in protocol.images.location(71)
    assert protocol.images.name(71) == f"{protocol.images.name(23)} at 8 pixels"
    assert protocol.images.name(0) == "person 1000000, photo 0"
    (report,) = run_protocols(make_net(32), [("SyntheticPairs", protocol)])
    names = [metric.name for metric in report.metrics]
    assert names[0] == "accuracy"
    assert names[-2:] == ["accuracy@16px", "accuracy@8px"]
    assert report.options["resolution"] == [16, 8]
    assert report.options["pairs"] == 24
    parts = parts_of(report)
    assert [len(parts[part].trials["score"]) for part in ("@16px", "@8px")] == [24, 24]


def test_the_sharp_part_equals_the_protocol_without_resolutions(make_net: Callable[..., Any]) -> None:
    net = make_net(32)
    plain = PROTOCOLS.build("SyntheticPairs", OPTIONS)
    both = PROTOCOLS.build("SyntheticPairs", {**OPTIONS, "resolution": [16], "flip": False})
    first, second = run_protocols(net, [("a", plain), ("b", both)])
    assert first.headline.value == second.headline.value


def test_embeddings_that_separate_persons_are_rewarded() -> None:
    protocol = PROTOCOLS.build("SyntheticPairs", OPTIONS)
    person = np.repeat(np.arange(8), 3)  # images of a person lie together
    report = protocol.evaluate(Embeddings(np.eye(8, dtype=np.float32)[person]))
    assert report.headline.value == 1.0


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="resolution 32 must be at least 2 and below the image size, 32 pixels"):
        PROTOCOLS.build("SyntheticPairs", {**OPTIONS, "resolution": [32]})
    protocol = PROTOCOLS.build("SyntheticPairs", OPTIONS)
    with pytest.raises(DataError, match="24 images need as many embeddings"):
        protocol.evaluate(Embeddings(np.zeros((3, 2), np.float32)))


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("seed", -1),
        *((name, number) for name in ("identities", "per_identity", "folds", "pairs") for number in (-1, 0, 2**62)),
    ],
)
def test_numbers_out_of_range_are_refused(option: str, number: int) -> None:
    with pytest.raises(FacelabError, match=option):
        PROTOCOLS.build("SyntheticPairs", {"identities": 6, "per_identity": 3, "folds": 2, "pairs": 8, option: number})
