import pytest
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cost", "MobileFaceNet", "--seconds", "inf"], "--seconds is inf, but must lie in [0, 3600]"),
        (["cost", "MobileFaceNet", "--seconds", "nan"], "--seconds is nan"),
        (["data", "shallow", "faces", "--seed", "-1"], "--seed is -1"),
        (["data", "shallow", "faces", "--seed", str(2**64)], f"--seed is {2**64}"),
        (["data", "shallow", "faces", "--per-id", "0"], "--per-id is 0"),
        (["data", "list", "faces", "--min-images", "0"], "--min-images is 0"),
        (["data", "synthetic", "out", "--seed", str(2**63)], f"--seed is {2**63}"),
        (["data", "align", "faces", "--landmarks", "x", "--out", "y", "--size", "9" * 400], "--size is 999"),
        (["data", "ijbs-crops", "faces", "--margin", "nan"], "--margin is nan"),
        (["data", "ijbs-crops", "faces", "--size", "-5"], "--size is -5"),
    ],
)
def test_numbers_that_nothing_can_use_are_refused_by_their_option(words: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError), result.output
    assert str(result.exception).startswith(sentence)
