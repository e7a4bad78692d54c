"""``facelab draw`` as a user types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.data.synthetic.formats import Export, write_format
from facelab.errors import DataError, FacelabError


def run(*words: object) -> str:
    result = CliRunner().invoke(cli.app, ["draw", *map(str, words)])
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_base_and_adapted_model_are_drawn(trained_run: Path, by_sharpness: Path, tmp_path: Path) -> None:
    write_format("lfw", Export(tmp_path, identities=4, per_identity=3, size=32, folds=2, pairs=8))
    folder = tmp_path / "lfw" / "images"
    probe = f"{{Degraded: {{source: {{ImageFolder: {{root: {folder}}}}}, sizes: [8, 8]}}}}"
    words = ["--gallery", folder, "--probe", probe, "--out", tmp_path / "a.png", "--people", 3, "--images", 2]
    said = run(trained_run, by_sharpness, *words)
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "The picture of 3 people" in said
    assert said.count("of 6 probes are nearest to their person") == 2
    with pytest.raises(DataError, match="gallery and probe have nobody in common; the first are '.*' and 'class 0'"):
        run(trained_run, *words[:3], "{SyntheticFaces: {identities: 2, per_identity: 1}}", *words[4:6])


def test_scores_that_no_model_takes_are_refused(trained_run: Path, tmp_path: Path) -> None:
    faces = "{SyntheticFaces: {identities: 2, per_identity: 2, size: 32}}"
    words = ["draw", str(trained_run), "--gallery", faces, "--probe", faces, "--out", str(tmp_path / "d.png")]
    result = CliRunner().invoke(cli.app, [*words, "--quality", "{Sharpness: {}}"])
    assert "none of the models takes quality scores; leave --quality out" in str(result.exception)
    assert not (tmp_path / "d.png").exists()
