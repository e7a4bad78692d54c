"""Two processes score each image once between them, and write the table that one process writes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from facelab import distributed
from facelab.cli import main as cli
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import CorruptImage, DataError
from facelab.iqa.scored_set import ScoredSet, ScoringOptions
from facelab.iqa.shares import score_in_shares
from facelab.iqa.sharpness import Sharpness
from facelab.iqa.table import Table
from facelab.quality.table import ScoreTable, write_scores

COUNT = 7  # so that the shares differ


class Recorded:
    """Images of which it is written down which were read; one cannot be, one may be refused by the scorer."""

    def __init__(self, tiny: int | None = None) -> None:
        self.read_rows: list[int] = []
        self.tiny = tiny

    def __len__(self) -> int:
        return COUNT

    def name(self, index: int) -> str:
        return f"{index}.png"

    def fingerprint(self) -> str:
        return "recorded"

    def read(self, index: int) -> NDArray[np.uint8]:
        self.read_rows.append(index)
        if index == 5:
            raise CorruptImage("5.png: is not an image.")
        side = 2 if index == self.tiny else 16
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)


def score(tiny: int | None = None) -> tuple[ScoredSet | str, list[int]]:
    images = Recorded(tiny)
    try:
        return score_in_shares(Sharpness(), images, ScoringOptions(batch_size=2, workers=1)), sorted(images.read_rows)
    except DataError as error:
        return str(error), sorted(images.read_rows)


def test_each_process_scores_a_share_and_gets_all_scores() -> None:
    alone, everything = score()
    assert everything == list(range(COUNT))
    assert isinstance(alone, ScoredSet)
    assert alone.failed == ((5, "5.png: is not an image."),)
    (first, first_rows), (second, second_rows) = distributed.run_processes(score, 2)
    assert first_rows + second_rows == list(range(COUNT))
    assert len(first_rows) == 4
    for found in (first, second):
        assert found.failed == alone.failed
        np.testing.assert_array_equal(found.values, alone.values)


def test_what_one_process_refuses_stops_all() -> None:
    for refusal, _ in distributed.run_processes(score, 2, 6):
        assert "Sharpness takes images of at least 3x3 pixels, got 2x2" in refusal


def look_up(path: str) -> list[float]:
    return score_in_shares(Table(Path(path)), Recorded(), ScoringOptions()).values.tolist()


def test_a_table_is_looked_up_by_all(tmp_path: Path) -> None:
    values = np.arange(COUNT, dtype=np.float32)
    write_scores(tmp_path / "t.csv", Recorded(), values, Sharpness().card)
    assert distributed.run_processes(look_up, 2, str(tmp_path / "t.csv")) == [values.tolist()] * 2


def command(folder: str, cache: str) -> tuple[int, str]:
    """Score drawn faces by the command; gives how many images this process scored, and what it printed."""
    scored: list[int] = []
    measure = Sharpness.measure

    def counted(scorer: Sharpness, pixels: torch.Tensor) -> torch.Tensor:
        scored.append(len(pixels))
        return measure(scorer, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sharpness, "measure", counted)
        patch.setenv("FACELAB_CACHE", cache)
        source = "{SyntheticFaces: {identities: 3, per_identity: 3, size: 32}}"
        words = ["iqa", "score", source, "-s", "Sharpness", "--out", f"{folder}/table.csv"]
        result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    return sum(scored), result.output


def test_the_command_writes_one_table(tmp_path: Path) -> None:
    SyntheticFaces(3, 3, size=32)
    assert command(str(tmp_path / "one"), str(tmp_path / "cache"))[0] == 9
    shutil.rmtree(tmp_path / "cache" / "scores")
    (first, shown), (second, silent) = distributed.run_processes(
        command, 2, str(tmp_path / "two"), str(tmp_path / "cache")
    )
    assert (first, second) == (5, 4)
    assert "Sharpness, 0 to no limit" in shown
    assert not silent.strip()  # before rich 15 a bar that is not shown ends in an empty line
    one, two = ((tmp_path / name / "table.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(ScoreTable(tmp_path / "two" / "table.csv").values) == 9
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"table.csv"}
