import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.cli.show import REGISTRIES, find_citation
from facelab.data.synthetic.source import SyntheticFaces
from facelab.engine.loop import CALLBACKS
from facelab.errors import ConfigError, CorruptImage, FacelabError
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.test_protocol.protocols.lfw import LFW
from facelab.test_protocol.report.report_store import read_reports

runner = CliRunner()


def output_of(*words: str) -> str:
    result = runner.invoke(cli.app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def error_of(kind: type[FacelabError], *words: str) -> str:
    result = runner.invoke(cli.app, list(words))
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


@pytest.mark.parametrize("kind", [*sorted(REGISTRIES), "configs"])
def test_lists_everything(kind: str) -> None:
    assert len(output_of("list", kind).splitlines()) > 4


def test_a_kind_of_which_there_is_none_is_no_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "WandB" in output_of("list", "callbacks")
    monkeypatch.setattr(CALLBACKS, "names", list)
    assert output_of("list", "callbacks") == "No callback is installed; docs/extending.md makes one.\n"


def test_what_comes_first_stands_first_in_the_help() -> None:
    shown = output_of("--help")
    places = [shown.index(f" {command} ") for command in ("train", "test", "compare", "embed", "cost", "data")]
    assert places == sorted(places)


def test_modes_are_listed_with_their_paper_and_configurations() -> None:
    text = output_of("list", "modes")
    for words in (
        "Dan et al.,",
        "ms1mv2-s",
        "facexzoo-swin, finetune",
        "petalface-webface12m",
    ):
        assert words in text


def test_lists_options_papers_and_catalogue_entries() -> None:
    text = output_of("list", "heads")
    assert "margin=0.5, scale=64.0, boundary='linear'" in text
    assert "Deng et al., CVPR 2019" in text
    assert "= CosFace(margin=0.35, scale=32)" in text


@pytest.mark.parametrize("name", ["ArcFace", "AM-Softmax", "SubCenter", "MobileFaceNet", "LFW", "facelab"])
def test_cites(name: str) -> None:
    text = output_of("cite", name)
    assert text.startswith("@")
    assert text.count("{") == text.count("}")


def test_shows_resolved_settings() -> None:
    text = output_of("show", "conventional/facexzoo", "optimizer.lr=0.05")
    assert "lr: 0.05" in text
    assert "momentum: 0.9" in text


def test_an_unknown_name_to_cite_is_answered_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="nothing is called 'ArcFaec'. Did you mean 'ArcFace'"):
        find_citation("ArcFaec")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list", "hats"], "there are no 'hats' to list. Did you mean 'heads'?"),
        (
            ["train", "convntional"],
            "'convntional' is neither a file nor a shipped configuration. Did you mean 'conventional'?",
        ),
        (["train", "training.epoch=3"], "unknown key 'training.epoch'. Did you mean 'epochs'?"),
        (["train", "--resume"], "--resume needs --run FOLDER"),
        (["train", "conventional", "--run", "nowhere", "--resume", "step-8"], "has no checkpoint 'step-8'"),
        (["train", "conventional", "--run", "nowhere", "--resume=step-8"], "has no checkpoint 'step-8'"),
        (
            ["train", "conventional", "--run", "nowhere", "--resume=8"],
            "--resume=8 names no checkpoint; write last",
        ),
        (["test", "nowhere", "LFW.root=a", "LFW.pairs=b"], "'nowhere' is neither a run folder nor a checkpoint folder"),
        (["test", "--backbone", "r18", "LFW.root=a"], "--backbone and --weights go together"),
        (
            ["verify", "a.jpg", "b.jpg", "--model", "nowhere"],
            "'nowhere' is neither a run folder nor a checkpoint folder",
        ),
    ],
)
def test_user_errors_are_one_sentence_without_a_traceback(
    words: list[str], sentence: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["facelab", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capfd.readouterr()
    assert stopped.value.code == 1
    assert captured.err.startswith("error: ")
    assert sentence in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err + captured.out


def test_show_of_a_run(trained_run: Path) -> None:
    text = output_of("show", str(trained_run))
    assert "MobileFaceNet" in text
    assert "32x32 BGR" in text


def test_test_uses_the_protocols_of_the_run_and_writes_the_report(trained_run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    text = output_of("test", str(trained_run), "--checkpoint", "all", "--out", out, "--bootstrap", "20")
    assert "synthetic" in text
    assert "step-" in text
    assert "95 % intervals in [ ], 20 bootstrap draws by" in " ".join(text.split())
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_embed_and_verify(trained_run: Path, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "embeddings.npz"
    text = output_of("embed", str(trained_run), *map(str, photos), "--out", str(out))
    assert "2 embeddings of length 16 are in" in text
    assert out.is_file()
    text = output_of("embed", str(trained_run), str(photos[0]), "--out", str(out))
    assert "1 embedding of length 16 is in" in text
    text = output_of("verify", *map(str, photos), "--model", str(trained_run), "--threshold", "-1")
    assert "cosine similarity" in text
    assert "same person at threshold -1" in text


@pytest.fixture
def damaged_lfw(tmp_path: Path) -> tuple[str, str]:
    """Options of an LFW protocol with 4 people; one image is damaged."""
    faces = SyntheticFaces(identities=4, per_identity=2, size=32, split="test")
    for row in range(8):
        path = tmp_path / "faces" / f"P{row // 2}" / f"P{row // 2}_{row % 2 + 1:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), faces.read(row)[:, :, ::-1])
    (tmp_path / "faces" / "P3" / "P3_0002.jpg").write_bytes(b"damaged")
    lines = ["2\t2", "P0\t1\t2", "P1\t1\t2", "P0\t1\tP1\t1", "P2\t1\tP3\t1"]
    lines += ["P2\t1\t2", "P3\t1\t2", "P0\t2\tP2\t2", "P1\t2\tP3\t1"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return f"LFW.root={tmp_path / 'faces'}", f"LFW.pairs={tmp_path / 'pairs.txt'}"


def test_test_names_images_that_it_could_not_read(
    trained_run: Path, damaged_lfw: tuple[str, str], tmp_path: Path
) -> None:
    words = ["test", str(trained_run), *damaged_lfw, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert "P3_0002.jpg" in error_of(CorruptImage, *words)
    text = output_of(*words, "--on-corrupt", "skip")
    assert "LFW: 1 of 8 images could not be read, they were left out: " in text
    assert text.count("P3_0002.jpg") == 1
    (report,) = read_reports(tmp_path / "out" / "report.json")[trained_run.name]
    assert report.options["failed_images"]["count"] == 1
    assert report.options["alignment"] == "unknown"
    assert len(report.options["preprocessing"]) == 32


def test_test_passes_a_quality_table_on(trained_run: Path, damaged_lfw: tuple[str, str], tmp_path: Path) -> None:
    images = LFW(*(Path(option.partition("=")[2]) for option in damaged_lfw)).images
    table = tmp_path / "quality.csv"
    write_scores(table, images, np.linspace(0, 1, 8, dtype=np.float32), ScorerCard(name="Made", version="1"))
    words = ["test", str(trained_run), *damaged_lfw, "--out", str(tmp_path / "out"), "--on-corrupt", "zero"]
    for named in (str(table), f"LFW={table}"):
        output_of(*words, "--quality", named)
        (report,) = read_reports(tmp_path / "out" / "report.json")[trained_run.name]
        assert report.options["quality"]["scorer"] == "Made"
    error = error_of(ConfigError, *words, "--quality", f"LWF={table}")
    assert "a quality table for 'LWF', but no such protocol. Did you mean 'LFW'" in error
