"""Every kind of protocol tests an adapted model with the scores of its images, as if each were embedded by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import facelab
from facelab.catalogue import build
from facelab.cli import main as cli
from facelab.data.sources.resized import ResizedImages
from facelab.data.synthetic.formats import Export, write_format
from facelab.inputs import normalise
from facelab.iqa.sharpness import Sharpness
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Protocol, Report
from facelab.test_protocol.report.report_store import read_reports

SIDE = 32
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "LFW": ("lfw", {"root": "lfw/images", "pairs": "lfw/pairs.txt"}),
    "TinyFace": ("tinyface", {"root": "tinyface"}),
    "IJBC": ("ijb", {"root": "IJBC"}),
    "IJBS": ("ijbs", {"root": "ijbs"}),
}


@pytest.mark.parametrize("protocol", KINDS)
def test_a_test_embeds_each_image_at_its_own_gate(
    protocol: str, by_sharpness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, files = KINDS[protocol]
    write_format(form, Export(tmp_path, identities=6, per_identity=5, size=SIDE, folds=2, pairs=12, resolution=8))
    options = {name: str(tmp_path / path) for name, path in files.items()}
    by_hand = build(PROTOCOLS, {protocol: options}, size=SIDE)
    given = recorded(type(by_hand), monkeypatch)
    words = [f"{protocol}.{name}={path}" for name, path in options.items()]
    tested = CliRunner().invoke(
        cli.app, ["test", str(by_sharpness), *words, "--resize", "--out", str(tmp_path / "out")]
    )
    assert tested.exit_code == 0, tested.exception or tested.output
    (report,) = read_reports(tmp_path / "out")[by_sharpness.name]
    assert report.options["quality"]["scorer"] == "Sharpness"
    (found,) = given
    plain, mirrored, scores = embedded(by_hand, by_sharpness, wrong=False)
    assert apart(found.values, plain) < 1e-5
    np.testing.assert_allclose(found.quality_scores, scores, rtol=1e-5)
    assert (found.flipped is None) != by_hand.flip
    if found.flipped is not None:
        assert apart(found.flipped, mirrored) < 1e-5
    others, _, _ = embedded(by_hand, by_sharpness, wrong=True)
    assert apart(others, plain) > 5e-5  # so that the scores of other images would be seen


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """Largest distance between two embeddings of one image, beside their length."""
    return float((np.linalg.norm(left - right, axis=1) / np.linalg.norm(right, axis=1)).max())


def recorded(protocol: type[Protocol], monkeypatch: pytest.MonkeyPatch) -> list[Embeddings]:
    """What a protocol is given to evaluate from now on."""
    given: list[Embeddings] = []
    evaluate = protocol.evaluate

    def spied(self: Protocol, embeddings: Embeddings) -> Report:
        given.append(embeddings)
        return evaluate(self, embeddings)

    monkeypatch.setattr(protocol, "evaluate", spied)
    return given


def embedded(protocol: Protocol, run: Path, *, wrong: bool) -> list[np.ndarray]:
    """All images of a protocol and their mirrored versions by the network itself, one by one, and their scores.

    Args:
        protocol: Names the images.
        run: The model.
        wrong: Give each image the score of another one.
    """
    network, scorer = facelab.load(run).network, Sharpness()
    images = ResizedImages(protocol.images, SIDE, SIDE)
    pixels = [torch.from_numpy(images.read(row).copy()).permute(2, 0, 1)[None] for row in range(len(images))]
    scores = torch.cat([scorer.score(one) for one in pixels])
    gates = scores.flip(0) if wrong else scores
    rows: list[list[np.ndarray]] = [[], []]
    for row, one in enumerate(pixels):
        for place, seen in enumerate((one, one.flip(3))):
            with torch.no_grad():
                rows[place].append(network(normalise(seen, network.input_spec), gates[row : row + 1]).numpy()[0])
    return [np.stack(rows[0]), np.stack(rows[1]), scores.numpy()]
