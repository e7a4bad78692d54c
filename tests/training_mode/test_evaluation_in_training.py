"""Evaluation during training, on two processes, with a network that takes quality and an image that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from facelab.data.synthetic.source import SyntheticFaces
from facelab.distributed import run_processes
from facelab.errors import ConfigError, DataError
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.test_protocol.protocols.lfw import LFW

CARD = ScorerCard(name="Made", version="1", low=0.0, high=1.0)
SOURCE: dict[str, Any] = {"identities": 8, "per_identity": 8, "size": 32}


@pytest.fixture
def faces(tmp_path: Path) -> dict[str, str]:
    """LFW of 4 people with 2 images each, of which one is damaged; score tables of it and of the training images."""
    random, root = np.random.default_rng(0), tmp_path / "faces"
    for person in range(4):
        for number in (1, 2):
            path = root / f"P{person}" / f"P{person}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    (root / "P3" / "P3_0002.jpg").write_bytes(b"damaged")
    pairs = [f"P{person}\t1\t2" for person in range(4)]
    pairs += [f"P{person}\t1\tP{(person + 1) % 4}\t2" for person in range(4)]
    order = [0, 1, 4, 5, 2, 3, 6, 7]  # two folds, each with two same and then two different pairs
    (tmp_path / "pairs.txt").write_text("\n".join(["2\t2", *(pairs[number] for number in order)]) + "\n")
    images = LFW(root, tmp_path / "pairs.txt").images
    values = np.linspace(0, 1, len(images), dtype=np.float32)
    damaged = next(row for row in range(len(images)) if images.name(row) == "P3/P3_0002.jpg")
    values[damaged] = np.nan
    write_scores(tmp_path / "lfw.csv", images, values, CARD)
    source = SyntheticFaces(**SOURCE)
    write_scores(tmp_path / "train.csv", source, np.linspace(0, 1, len(source), dtype=np.float32), CARD)
    return {name: str(tmp_path / name) for name in ("faces", "pairs.txt", "lfw.csv", "train.csv")}


def settings(faces: dict[str, str], *more: str) -> list[str]:
    evaluation = {
        "protocols": {"lfw": {"LFW": {"root": faces["faces"], "pairs": faces["pairs.txt"], "flip": True}}},
        "quality": {"lfw": faces["lfw.csv"]},
        "every_updates": 2,
        "on_corrupt": "skip",
    }
    flow = yaml.safe_dump(evaluation, default_flow_style=True, width=10_000).strip()
    return [f"data.source.SyntheticFaces={{{_flow(SOURCE)}}}", f"evaluation={flow}", "training.epochs=1", *more]


def _flow(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in options.items())


def register_quality_network() -> None:
    """A backbone whose embedding is scaled by the quality of each image; only in processes that ask for it."""
    from torch import Tensor

    from facelab.backbone.base import BACKBONES
    from facelab.backbone.mobilefacenet import MobileFaceNet

    class Scaled(MobileFaceNet):
        needs_quality = True

        def forward(self, image: Tensor, quality: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image) * (1.0 + quality)[:, None]

    BACKBONES.register("Scaled")(Scaled)


def train_with_quality(folder: str, words: list[str]) -> Any:
    """Runs in each of two processes."""
    from rich.console import Console

    from facelab.model.face_model import load_model
    from facelab.quality.table import ScoreTable
    from facelab.run.run import run_training
    from facelab.run.settings import load_config
    from facelab.test_protocol.base import Embeddings, Report
    from facelab.test_protocol.extraction.embed import embed

    register_quality_network()
    seen: list[Any] = []
    evaluate = LFW.evaluate

    def watched(self: LFW, embeddings: Embeddings) -> Report:
        assert embeddings.skipped is not None
        assert embeddings.quality_scores is not None
        seen.append((embeddings.values, np.flatnonzero(embeddings.skipped).tolist(), embeddings.quality_scores))
        return evaluate(self, embeddings)

    LFW.evaluate = watched  # type: ignore[method-assign]
    config = load_config(str(Path(__file__).parent.parent / "tiny_run.yaml"), words)
    result = run_training(config, Path(folder), Console(quiet=True))
    images = LFW(Path(folder).parent / "faces", Path(folder).parent / "pairs.txt").images
    quality = ScoreTable(Path(folder).parent / "lfw.csv").of(images)
    exported = embed(load_model(folder, device="cpu").network, images, quality=quality, on_corrupt="skip")
    return seen, dict(result.reports[0].options), result.progress.update, exported.values


def test_two_processes_test_every_two_updates(tmp_path: Path, faces: dict[str, str]) -> None:
    words = settings(faces, "backbone={Scaled: {width: 0.25, feat_dim: 16}}", f"data.quality={faces['train.csv']}")
    (seen, options, updates, exported), (other_seen, other_options, *_) = run_processes(
        train_with_quality, 2, str(tmp_path / "run"), words
    )
    assert updates == 4
    assert len(seen) == len(other_seen) == 2
    for (values, skipped, quality), (other_values, *_) in zip(seen, other_seen, strict=True):
        np.testing.assert_array_equal(values, other_values)
        assert np.isnan(quality[skipped]).tolist() == [True]
        assert not values[skipped].any()
    assert options == other_options
    np.testing.assert_array_equal(seen[-1][0], exported)  # and not of networks with other BatchNorm statistics
    assert options["failed_images"]["count"] == 1
    assert options["failed_images"]["first"][0].endswith("P3/P3_0002.jpg")
    assert options["quality"]["scorer"] == "Made"


def test_a_network_that_needs_quality_does_not_start_without(
    tmp_path: Path, run_tiny: Callable[..., Any], faces: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from facelab.backbone.mobilefacenet import MobileFaceNet

    monkeypatch.setattr(MobileFaceNet, "needs_quality", True)
    with pytest.raises(ConfigError, match=r"takes a quality score of each image.*data\.quality"):
        run_tiny(tmp_path / "run", *settings(faces))
    with pytest.raises(ConfigError, match=r"takes a quality score of each image.*evaluation\.quality"):
        run_tiny(
            tmp_path / "run", *settings(faces, f"data.quality={faces['train.csv']}", "evaluation.quality.lfw=null")
        )
    assert not (tmp_path / "run").exists()


def test_tables_are_checked_before_training(
    tmp_path: Path, run_tiny: Callable[..., Any], faces: dict[str, str]
) -> None:
    with pytest.raises(DataError, match=r"lfw\.csv: has no score for 64 of 64 images"):
        run_tiny(tmp_path / "run", *settings(faces, f"data.quality={faces['lfw.csv']}"))
    with pytest.raises(DataError, match=r"P3_0002\.jpg: the image has no quality score"):
        run_tiny(tmp_path / "run", *settings(faces, "evaluation.on_corrupt=error"))
    assert not (tmp_path / "run").exists()
