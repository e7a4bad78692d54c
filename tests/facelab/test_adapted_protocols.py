"""Every kind of protocol tests an adapted model with the scores of its images, as if each were embedded by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import facelab
from facelab import cli
from facelab.catalogue import build
from facelab.data.synthetic_formats import Export, write_format
from facelab.inputs import normalise
from facelab.iqa.sharpness import Sharpness
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.report_store import read_reports

SIDE = 32
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "LFW": ("lfw", {"root": "lfw/images", "pairs": "lfw/pairs.txt"}),
    "TinyFace": ("tinyface", {"root": "tinyface"}),
    "IJBC": ("ijb", {"root": "IJBC"}),
    "IJBS": ("ijbs", {"root": "ijbs"}),
}


@pytest.mark.parametrize("protocol", KINDS)
def test_a_test_embeds_each_image_at_its_own_gate(protocol: str, by_sharpness: Path, tmp_path: Path) -> None:
    form, files = KINDS[protocol]
    write_format(form, Export(tmp_path, identities=6, per_identity=5, size=SIDE, folds=2, pairs=12, resolution=8))
    options = {name: str(tmp_path / path) for name, path in files.items()}
    words = [f"{protocol}.{name}={path}" for name, path in options.items()]
    tested = CliRunner().invoke(
        cli.app, ["test", str(by_sharpness), *words, "--resize", "--out", str(tmp_path / "out")]
    )
    assert tested.exit_code == 0, tested.exception or tested.output
    (report,) = read_reports(tmp_path / "out")[by_sharpness.name]
    assert report.options["quality"]["scorer"] == "Sharpness"
    by_hand = build(PROTOCOLS, {protocol: options}, size=SIDE)
    expected = by_hand.evaluate(embedded(by_hand, by_sharpness))
    assert [metric.name for metric in report.metrics] == [metric.name for metric in expected.metrics]
    for found, wanted in zip(report.metrics, expected.metrics, strict=True):
        assert found.value == (None if wanted.value is None else pytest.approx(wanted.value, abs=1e-4)), found.name


def embedded(protocol: Any, run: Path) -> Embeddings:
    """All images of a protocol by the network itself, one by one, and their mirrored versions."""
    from facelab.data.resized import ResizedImages

    network, scorer = facelab.load(run).network, Sharpness()
    images = ResizedImages(protocol.images, SIDE, SIDE)
    rows: list[list[np.ndarray]] = [[], []]
    scores = []
    for row in range(len(images)):
        pixels = torch.from_numpy(images.read(row).copy()).permute(2, 0, 1)[None]
        score = scorer.score(pixels)
        scores.append(score.item())
        for place, seen in enumerate((pixels, pixels.flip(3))):
            with torch.no_grad():
                rows[place].append(network(normalise(seen, network.input_spec), score).numpy()[0])
    assert len(set(scores)) > 1
    values, flipped = (np.stack(one) for one in rows)
    return Embeddings(
        values, flipped if protocol.flip else None, quality=np.array(scores, np.float32), scorer=scorer.card
    )
