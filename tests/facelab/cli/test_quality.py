"""Quality scores as a user gives them to commands: those of another scorer, and broken ones, are refused at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import facelab
from facelab.cli import main as cli
from facelab.data.formats.images import decode_image
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError, FacelabError
from facelab.iqa.sharpness import Sharpness
from facelab.quality.card import ScorerCard
from facelab.quality.table import ScoreTable, write_scores
from facelab.test_protocol.protocols.synthetic import SyntheticPairs
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_card

MADE = ScorerCard(name="made", low=0, high=1)
OTHER = "holds scores of other, 0 to 1, higher is better, but the gate was calibrated on made, 0 to 1, higher is better"
PAIRS = {"identities": 10, "per_identity": 2, "folds": 2, "pairs": 20}
WORDS = [f"SyntheticPairs.{key}={value}" for key, value in PAIRS.items()]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")


def run(*words: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def tables(tmp_path: Path) -> Callable[[ScorerCard], Path]:
    """A function that writes a table of the pairs' images by some scorer."""

    def write(scorer: ScorerCard) -> Path:
        images = SyntheticPairs(size=32, **PAIRS).images
        path = tmp_path / f"{scorer.name}.csv"
        write_scores(path, images, np.linspace(0, 1, len(images), dtype=np.float32), scorer)
        return path

    return write


Tables = Callable[[ScorerCard], Path]


def test_a_checkpoint_says_whose_scores_its_gate_takes(dual: Path) -> None:
    card = read_card(CheckpointStore(dual / "checkpoints").find("last"))
    expected = {"name": "made", "version": "", "low": 0.0, "high": 1.0, "higher_is_better": True}
    assert card["scorer"] == {"card": expected}
    assert facelab.load(dual).network.quality_scorer == MADE


def test_a_test_refuses_scores_of_another_scorer(dual: Path, tables: Tables, tmp_path: Path) -> None:
    words = ["test", dual, *WORDS, "--out", tmp_path / "out", "--quality"]
    other = tables(MADE.model_copy(update={"name": "other"}))
    with pytest.raises(ConfigError, match=rf"other\.csv' of 'SyntheticPairs': {OTHER}; score .* --scorer made"):
        run(*words, other)
    for change in ({"higher_is_better": False}, {"high": 2.0}, {"low": None}):
        with pytest.raises(ConfigError, match="but the gate was calibrated on made, 0 to 1, higher is better"):
            run(*words, tables(MADE.model_copy(update=change)))
    assert not (tmp_path / "out").exists()
    assert "SyntheticPairs" in run(*words, tables(MADE))


def test_a_plain_list_is_taken_when_its_scorer_is_named(dual: Path, tables: Tables, tmp_path: Path) -> None:
    lines = tables(MADE).read_text().splitlines()
    (tmp_path / "plain.csv").write_text("\n".join(lines[1:]) + "\n")
    table = f"path: {tmp_path / 'plain.csv'}, low: 0, high: 1, higher_is_better: true"
    words = ["test", dual, *WORDS, "--out", tmp_path / "out", "--quality"]
    with pytest.raises(ConfigError, match="holds scores of Table, 0 to 1, .* calibrated on made"):
        run(*words, f"{{Table: {{{table}}}}}")
    assert "SyntheticPairs" in run(*words, f"{{Table: {{{table}, scorer: made}}}}")


def test_training_refuses_test_scores_of_another_scorer_at_its_start(
    adapt: Callable[..., Path], tables: Tables, tmp_path: Path
) -> None:
    other = tables(MADE.model_copy(update={"name": "other"}))
    pairs = ", ".join(f"{key}: {value}" for key, value in PAIRS.items())
    protocol = [f"evaluation.protocols.p={{SyntheticPairs: {{{pairs}}}}}", f"evaluation.quality.p={other}"]
    with pytest.raises(ConfigError, match=f"of 'p': {OTHER}"):
        adapt(tmp_path / "run", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid", *protocol)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_resumed_run_refuses_a_table_that_another_scorer_made_anew(dual: Path, tmp_path: Path) -> None:
    shutil.copytree(dual, tmp_path / "run")
    table = dual.parent / "dual.csv"
    before = table.read_bytes()
    table.write_bytes(before.replace(b'"made"', b'"other"', 1))
    try:
        with pytest.raises(ConfigError, match=rf"^data\.quality: {OTHER}"):
            run("train", "--resume", "--run", tmp_path / "run")
    finally:
        table.write_bytes(before)


def test_merging_at_the_mean_gate_of_a_table(dual: Path, tables: Tables, photos: list[Path], tmp_path: Path) -> None:
    words = ["merge", dual, "--out", tmp_path / "merged", "--quality"]
    with pytest.raises(ConfigError, match=OTHER):
        run(*words, tables(MADE.model_copy(update={"name": "other"})))
    with pytest.raises(ConfigError, match="both say at which gate to merge"):
        run(*words, tables(MADE), "--gate", "0.5")
    run(*words, tables(MADE))
    gate = facelab.load(dual).network.gate
    mean = float(torch.sigmoid((torch.linspace(0, 1, 20) - gate.tau) / gate.temperature).mean())
    run("merge", dual, "--out", tmp_path / "by-gate", "--gate", mean)
    merged, by_gate = (facelab.load(tmp_path / name).embed(photos) for name in ("merged", "by-gate"))
    np.testing.assert_allclose(merged, by_gate, atol=1e-5)
    with pytest.raises(ConfigError, match="has no adapters"):
        run("merge", tmp_path / "merged", "--out", tmp_path / "again", "--quality", tables(MADE))


def test_a_file_of_adapters_keeps_the_scorer(dual: Path, trained_run: Path, tmp_path: Path) -> None:
    run("export-adapter", dual, "--out", tmp_path / "a.safetensors")
    model = facelab.load(trained_run, adapter=tmp_path / "a.safetensors")
    assert model.network.quality_scorer == MADE
    assert model.card["scorer"] == facelab.load(dual).card["scorer"]


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (
            "1.5",
            r"line 66: the score of '.*' is 1\.5, outside of what the table declares \(made, 0 to 1, higher is",
        ),
        ("-0.001", r"is -0\.001, outside of what the table declares"),
        ("nan", r"is nan, outside of what the table declares"),
        ("good", r"is 'good', not a number"),
        ("", r"the image has no quality score \(1 images have none\); score the set anew: facelab iqa score DATA"),
        (None, r"is cut off: it has 63 of 64 scores; make it anew"),
    ],
)
def test_training_refuses_broken_scores(trained_run: Path, tmp_path: Path, last: str | None, sentence: str) -> None:
    faces, table = SyntheticFaces(identities=8, per_identity=8, size=32), tmp_path / "scores.csv"
    write_scores(table, faces, np.linspace(0, 1, 64, dtype=np.float32), MADE)
    *lines, final = table.read_text().splitlines()
    lines += [] if last is None else [f"{final.rpartition(',')[0]},{last}"]
    table.write_text("\n".join(lines) + "\n")
    words = ["mode=adaptation", "backbone=null", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid"]
    with pytest.raises(DataError, match=sentence):
        run("train", TINY, *words, f"base={trained_run}", f"data.quality={table}", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_and_test_refuse_a_table_that_misses_images(trained_run: Path, dual: Path, tmp_path: Path) -> None:
    faces, table = SyntheticFaces(identities=8, per_identity=8, size=32), tmp_path / "scores.csv"
    write_scores(table, faces, np.linspace(0, 1, 64, dtype=np.float32), MADE)
    lines = table.read_text().replace('"images":64', '"images":56').splitlines()
    table.write_text("\n".join(lines[:-8]) + "\n")
    words = ["mode=adaptation", "backbone=null", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid"]
    with pytest.raises(DataError, match=r"scores\.csv: has no score for 8 of 64 images, the first is '.*'; it"):
        run("train", TINY, *words, f"base={trained_run}", f"data.quality={table}", "--run", tmp_path / "run")
    assert ScoreTable(table).scorer == MADE
    with pytest.raises(DataError, match=r"scores\.csv: has no score for 20 of 20 images"):
        run("test", dual, *WORDS, "--quality", table, "--out", tmp_path / "out")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, a new folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def embedded(*words: object) -> np.ndarray:
    run("embed", *words, "--out", "found.npz")
    with np.load("found.npz") as arrays:
        found: np.ndarray = arrays["embeddings"]
    return found


def test_embed_and_verify_take_a_table_or_a_scorer(by_sharpness: Path, photos: list[Path], in_folder: Path) -> None:
    pixels = torch.stack([torch.from_numpy(decode_image(path.read_bytes(), "photo")) for path in photos])
    scores = Sharpness().score(pixels.permute(0, 3, 1, 2))
    expected = facelab.load(by_sharpness).embed(photos, quality=scores.tolist())
    run("iqa", "score", write_list(photos, in_folder), "--root", photos[0].parent, "-s", "Sharpness", "--out", "q.csv")
    for quality in (["--quality", "q.csv"], ["--quality", "{Sharpness: {}}"], []):
        np.testing.assert_allclose(embedded(by_sharpness, *photos, *quality), expected, atol=1e-6)
        shown = run("verify", *photos, "--model", by_sharpness, *quality)
        assert f"cosine similarity {expected[0] @ expected[1]:.4f}" in shown
    model = facelab.load(by_sharpness)
    for given in ("q.csv", Path("q.csv"), {"Sharpness": {}}, None):
        np.testing.assert_allclose(model.embed(photos, quality=given, batch_size=1), expected, atol=1e-6)


def write_list(photos: list[Path], folder: Path) -> Path:
    (folder / "list.txt").write_text("".join(f"{path.name} {row}\n" for row, path in enumerate(photos)))
    return folder / "list.txt"


def test_embed_and_verify_refuse_what_a_gate_cannot_take(
    dual: Path,
    by_sharpness: Path,
    trained_run: Path,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    verify = ["verify", *photos, "--model"]
    for words in (["embed", dual, *photos], [*verify, dual]):
        with pytest.raises(ConfigError, match=r"takes a quality score of each image, and there are none: "):
            run(*words)
        with pytest.raises(ConfigError, match=r"the scorer Sharpness: holds scores of Sharpness, .* on made"):
            run(*words, "--quality", "{Sharpness: {}}")
        with pytest.raises(ConfigError, match=r"no table 'Sharpness'; the scorer is written '\{Sharpness: \{\}\}'"):
            run(*words, "--quality", "Sharpness")
        with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
            run(*words, "--quality", "none.csv")
    with pytest.raises(ConfigError, match=r"gate was calibrated on Sharpness, .* \(version '2 sigma=1'\)"):
        run(*verify, by_sharpness, "--quality", "{Sharpness: {sigma: 2}}")
    with pytest.raises(ConfigError, match="the network takes no quality scores; leave quality out"):
        run(*verify, trained_run, "--quality", "{Sharpness: {}}")
    run(
        "iqa",
        "score",
        write_list(photos[:1], tmp_path),
        "--root",
        photos[0].parent,
        "-s",
        "Sharpness",
        "--out",
        "q.csv",
    )
    with pytest.raises(DataError, match=r"q\.csv: has no score for 1 of 2 images, the first is '.*1\.png'"):
        run(*verify, by_sharpness, "--quality", "q.csv")
    assert not Path("embeddings.npz").exists()


def test_given_scores_are_checked(dual: Path, photos: list[Path], tables: Tables) -> None:
    model = facelab.load(dual)
    for score in (1.5, -0.5, float("nan")):
        with pytest.raises(DataError, match=rf"quality score of image 1 is {score:g}, which .* give \(made, 0 to 1"):
            model.embed(photos, quality=[0.5, score])
    for scores, shape in (([0.5], r"\(1,\)"), (np.full((2, 1), 0.5), r"\(2, 1\)")):
        with pytest.raises(DataError, match=f"2 images need as many quality scores, got an array of shape {shape}"):
            model.embed(photos, quality=scores)
    pixels = [decode_image(path.read_bytes(), "photo") for path in photos]
    with pytest.raises(ConfigError, match="knows images by their paths; give arrays a score each, or a scorer"):
        model.embed(pixels, quality=str(tables(MADE)))
