"""A run that goes on with other numbers of processes, 2 -> 3 -> 1, by ``facelab reshard`` and without."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT, Backbone, Features
from facelab.cli import main as cli
from facelab.distributed import run_processes
from facelab.errors import CheckpointError, ConfigError, FacelabError
from facelab.inputs import InputSpec
from facelab.run.assembly import assemble, restore
from facelab.run.run import RunResult
from facelab.run.run_folder import claimed
from facelab.run.settings import RunConfig, load_config
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.class_rows import process_files, read_rows
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
CLASSES, UPDATES_PER_EPOCH = 8, 6
SGD = ["optimizer.name=sgd", "optimizer.lr=0.05"]
SAMPLED = {"PartialFC": {"sample_rate": 0.4, "unsampled": "exact"}}
RUNS: dict[str, tuple[list[str], float | None]] = {  # how near the run of one process they end, if it sees the same
    "sgd": (SGD, 1e-6),
    "adamw": (["optimizer.name=adamw", "optimizer.lr=0.005"], 1e-5),
    "sampled": ([*SGD, f"classifier={SAMPLED}"], None),  # each process draws from the classes that it owns
}
NAME = "Projection"


class Projection(Backbone):
    """A linear map of a small image, without BatchNorm, whose statistics depend on how images are shared out."""

    def __init__(self, feat_dim: int = 16, input_spec: InputSpec = FACEXZOO_INPUT) -> None:
        super().__init__(input_spec, feat_dim)
        self.linear = nn.Linear(3 * 8 * 8, feat_dim)

    def features(self, image: Tensor) -> Features:
        return Features(self.linear(nn.functional.adaptive_avg_pool2d(image, 8).flatten(1)))


def settings(run: str) -> list[str]:
    source = "data.source.SyntheticFaces.per_identity=9"
    sizes = ["training.batch_size=12", "training.accumulate=2", "checkpoint.keep_every_epochs=1"]
    return [f"backbone={NAME}", source, *sizes, *RUNS[run][0]]


def config_of(run: str) -> RunConfig:
    return load_config(TINY, settings(run))


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def go_on(folder: Path, runs: list[str]) -> list[float]:
    """Runs in each of three processes: resumes runs; what dropout would have drawn first in each."""
    from rich.console import Console

    from facelab.run.run import run_training

    BACKBONES.register(NAME)(Projection)
    drawn = []
    for run in runs:
        for place in (folder / run / "by-two", folder / run / "by-three"):
            restore(assemble(config_of(run)), last(place))
            drawn.append(float(torch.rand(())))
            assert run_training(config_of(run), place, Console(quiet=True), resume=True).progress.complete
    return drawn


def command(*words: object) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def state_of(run: Path) -> dict[str, Tensor]:
    """Every tensor that training moves."""
    training = read_tree(last(run) / "training.pt")
    flat = {**training["mode"]["network"], **read_rows(last(run), 0, CLASSES)}
    for number, optimizer in enumerate(training["optimization"]["optimizers"]):
        for index, state in optimizer.items():
            kept = {key: value for key, value in state.items() if isinstance(value, Tensor)}
            flat |= {f"{number}.{index}.{key}": value for key, value in kept.items()}
    return flat


@pytest.fixture(scope="module")
def registered() -> None:
    if NAME not in BACKBONES.names():
        BACKBONES.register(NAME)(Projection)


@pytest.mark.parametrize("runs", [["sgd"], pytest.param(["adamw", "sampled"], marks=pytest.mark.slow)], ids="-".join)
def test_two_then_three_then_one(
    runs: list[str], tmp_path: Path, registered: None, run_tiny: Run, cut_back: Cut
) -> None:
    for run in runs:
        place = tmp_path / run
        place.mkdir()
        run_tiny(place / "whole", *settings(run))
        for kind, count in (("by-two", 2), ("by-three", 3)):
            cut_back(place / "whole", place / kind, UPDATES_PER_EPOCH)
            assert f"was of 1, is of {count} processes" in command("reshard", place / kind, "--to", count)

    drawn = run_processes(go_on, 3, tmp_path, runs)
    for of_each in zip(*drawn, strict=True):
        assert len(set(of_each)) == 3, "each process has a dropout of its own"
    assert all(numbers[::2] == numbers[1::2] for numbers in drawn), "resharding changes nothing"

    for run in runs:
        place, tolerance = tmp_path / run, RUNS[run][1]
        two, three = state_of(place / "by-two"), state_of(place / "by-three")
        assert two.keys() == three.keys()
        assert [name for name, tensor in two.items() if not tensor.equal(three[name])] == []
        assert len(process_files(last(place / "by-two"))) == 3
        cut_back(place / "by-two", place / "alone", 2 * UPDATES_PER_EPOCH)
        assert run_tiny(place / "alone", *settings(run), resume=True).progress.complete
        whole, alone = state_of(place / "whole"), state_of(place / "alone")
        assert whole.keys() == alone.keys()
        for name, tensor in whole.items() if tolerance is not None else ():
            assert float((alone[name] - tensor).abs().max()) <= tolerance * float(tensor.abs().max()), name
        assert any("clock" in name for name in two) is (run == "sampled")


def test_what_cannot_be_resharded_is_refused(tmp_path: Path, run_tiny: Run) -> None:
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="has no checkpoint 'last'. There are: none; name the folder of a run"):
        command("reshard", run, "--to", 2)
    assert not run.exists()
    run_tiny(run, "training.epochs=1")
    with pytest.raises(ConfigError, match="has 8 class rows of its classifier for 9 processes.* at most 8"):
        command("reshard", run, "--to", 9)
    with claimed(run, run, print), pytest.raises(ConfigError, match="is in use by process"):
        command("reshard", run, "--to", 2)
    (last(run) / "training.pt").write_bytes(b"harmed")
    with pytest.raises(CheckpointError, match=r"training.pt' is damaged"):
        command("reshard", run, "--to", 2)
    assert len(process_files(last(run))) == 1
