"""``facelab iqa score`` and ``plot`` as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from facelab.cli.main import app
from facelab.data.formats.images import decode_image
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.synthetic.formats import Export, write_format
from facelab.errors import ConfigError, DataError
from facelab.iqa.sharpness import Sharpness
from facelab.quality.card import ScorerCard
from facelab.quality.table import ScoreTable, write_scores
from facelab.test_protocol.protocols.lfw import LFW
from facelab.test_protocol.report.quality_chart import quality_chart

SCORES = "Sharpness.scores.csv"


@pytest.fixture
def lfw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``images`` of drawn people and ``pairs.txt``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_format("lfw", Export(tmp_path, identities=6, per_identity=3, size=32, folds=2, pairs=12))
    return tmp_path / "lfw"


def run(*words: object) -> Result:
    """Run a command; errors of ours come through, as the main command expects them."""
    result = CliRunner().invoke(app, ["iqa", *map(str, words)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_folder_gets_a_table_beside_it_once(lfw: Path) -> None:
    data = lfw / "images"
    shown = run("score", data, "--scorer", "Sharpness", "--workers", 2, "--batch-size", 4).output
    source, table = ImageFolder(data), ScoreTable(lfw / f"{data.name}.{SCORES}")
    assert "Sharpness, 0 to no limit, higher is better" in shown
    first = decode_image((data / source.name(0)).read_bytes(), "first")
    expected = Sharpness().score(torch.from_numpy(first).permute(2, 0, 1)[None])
    assert table.of(source).values[0] == pytest.approx(expected.item(), rel=1e-5)
    table.of(source).require(source)
    written = table.path.stat().st_mtime_ns
    assert "has these scores already" in run("score", data, "--scorer", "Sharpness").output
    assert table.path.stat().st_mtime_ns == written
    assert "has these scores" not in run("score", data, "-s", "Sharpness", "--option", "sigma=2").output
    assert ScoreTable(table.path).scorer.version.endswith("sigma=2")


def test_an_unreadable_image_is_named_and_has_no_score(lfw: Path) -> None:
    data = lfw / "images"
    source = ImageFolder(data)
    (data / source.name(2)).write_bytes(b"x")
    shown = run("score", data, "-s", "Sharpness", "--out", "new/table.csv").output
    assert f"{source.name(2)}: is not an image" in shown
    assert np.flatnonzero(np.isnan(ScoreTable(Path("new/table.csv")).values)).tolist() == [2]


def test_a_protocol_gets_a_table_that_it_takes(lfw: Path) -> None:
    data, pairs = lfw / "images", lfw / "pairs.txt"
    run("score", f"LFW.root={data}", f"LFW.pairs={pairs}", "-s", "EffectiveResolution", "--size", "48x40")
    images = LFW(data, pairs).images
    scores = ScoreTable(lfw / "LFW.EffectiveResolution.scores.csv").of(images)
    scores.require(images)
    assert scores.values.max() < 40


def test_feature_norm_needs_a_network(lfw: Path) -> None:
    from facelab.backbone.base import BACKBONES
    from facelab.inputs import InputSpec

    data = lfw / "images"
    with pytest.raises(ConfigError, match="FeatureNorm needs a network: --model RUN"):
        run("score", data, "-s", "FeatureNorm")
    with pytest.raises(ConfigError, match="Sharpness looks at pixels only; leave --model"):
        run("score", data, "-s", "Sharpness", "--model", "run")
    network = BACKBONES.build("MobileFaceNet", input_spec=InputSpec())
    save_file(network.state_dict(), "weights.safetensors")
    words = ["--backbone", "MobileFaceNet", "--weights", "weights.safetensors", "--device", "cpu"]
    with pytest.raises(DataError, match=r"among 18 images from .* on: images are 32x32, but the network takes 112x112"):
        run("score", data, "-s", "FeatureNorm", *words)
    run("score", data, "-s", "FeatureNorm", *words, "--size", "112")
    assert np.isfinite(ScoreTable(lfw / f"{data.name}.FeatureNorm.scores.csv").values).all()


def test_words_that_do_not_do(lfw: Path) -> None:
    data = lfw / "images"
    with pytest.raises(ConfigError, match="Did you mean 'Sharpness'"):
        run("score", data, "-s", "Sharpnes")
    with pytest.raises(ConfigError, match="'other': score one training set at a time"):
        run("score", data, "other", "-s", "Sharpness")
    with pytest.raises(ConfigError, match="--root is for lists of images"):
        run("score", f"LFW.root={data}", "--root", data, "-s", "Sharpness")


def test_plot_of_two_tables_and_of_groups(lfw: Path) -> None:
    data = lfw / "images"
    run("score", data, "-s", "Sharpness", "--out", "all.csv")
    people = sorted({Path(name).parts[0] for name in ScoreTable(Path("all.csv")).names()})
    shown = run("plot", "all.csv", "all.csv", "--out", "two.png").output
    assert "threshold" in shown
    groups = ["--group", f"first={people[0]}/*", "--group", f"others={people[1]}/*"]
    assert "others" in run("plot", "all.csv", *groups, "--out", "groups.png").output
    for name in ("two.png", "groups.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match=r"no image is called like 'nobody\*'; the first is '"):
        run("plot", "all.csv", "--group", "x=nobody*")
    with pytest.raises(ConfigError, match="must be NAME=PATTERN"):
        run("plot", "all.csv", "--group", "x")
    run("score", data, "-s", "EffectiveResolution", "--out", "other.csv")
    with pytest.raises(ConfigError, match=r"other\.csv: is of EffectiveResolution.*draw one scorer at a time"):
        run("plot", "all.csv", "other.csv")


def test_histograms_add_up_to_all_images() -> None:
    random = np.random.default_rng(0)
    sets = {"gallery": random.normal(8, 1, 900).astype(np.float32), "probe": random.normal(2, 1, 90).astype(np.float32)}
    sets["probe"][3] = np.nan
    chart = quality_chart(sets, Sharpness().card, 5.0)
    assert [line.name for line in chart.lines] == ["gallery (900)", "probe (89)"]
    assert [line.y.sum() for line in chart.lines] == pytest.approx([100, 100])
    assert {len(line.y) for line in chart.lines} == {12}  # few images, few bins
    assert chart.marks == (("threshold (Otsu) 5", 5.0),)
    with pytest.raises(DataError, match="probe: there is no score to draw"):
        quality_chart(sets | {"probe": np.full(3, np.nan, np.float32)}, Sharpness().card, None)


@pytest.mark.parametrize(("higher_is_better", "share"), [(True, "66.7%"), (False, "33.3%")])
def test_plot_says_how_much_is_good(lfw: Path, higher_is_better: bool, share: str) -> None:
    card = ScorerCard(name="Made", higher_is_better=higher_is_better)
    values = np.array([1, 2] * 3 + [8, 9, 10] * 4, np.float32)
    write_scores(lfw / "faces.Made.scores.csv", ImageFolder(lfw / "images"), values, card)
    shown = run("plot", lfw / "faces.Made.scores.csv", "--out", lfw / "q.png").output
    assert shown.startswith("faces ")
    assert f"{share} good" in shown


def test_the_header_says_who_scored(lfw: Path) -> None:
    run("score", lfw / "images", "-s", "Sharpness", "--out", "t.csv")
    header = json.loads(Path("t.csv").read_text().splitlines()[0].removeprefix("#"))
    assert header["scorer"] == Sharpness().card.model_dump()
