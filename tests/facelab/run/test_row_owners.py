"""An owner of class rows with an optimiser of its own in a run: schedule, clipping, checkpoints, several processes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.optim import Optimizer

from facelab.distributed import run_processes
from facelab.head import fused_product
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS, UpdateRule
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.run.assembly import RunParts, assemble, restore
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
UPDATES_PER_EPOCH = 4
NAME = "SampledRows"
WORDS = (f"classifier={NAME}", "checkpoint.keep_every_epochs=1", "training.log_every=3")


class LazyMomentum(Optimizer):
    """Momentum of the rows that have a gradient; those that have none wait. ``moves`` counts, row by row."""

    def __init__(self, rows: nn.Parameter, rule: UpdateRule) -> None:
        super().__init__([rows], {"lr": rule.lr, "keep": rule.momentum})
        self.state[rows] = {"average": torch.zeros_like(rows), "moves": torch.zeros(len(rows), dtype=torch.int64)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        (rows,) = group["params"]
        taken, average = rows.grad.indices()[0], self.state[rows]["average"]
        average[taken] = group["keep"] * average[taken] + rows.grad.values()
        rows.index_add_(0, taken, average[taken], alpha=-group["lr"])
        self.state[rows]["moves"][taken] += 1


class SampledRows(FullSoftmax):
    """The classes of the batch take part, and each other one with one half probability."""

    def optimizer(self, rule: UpdateRule) -> Optimizer:
        return LazyMomentum(self.weight, rule)

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        full = super().candidates(features, labels)
        chosen = torch.rand(self.shard.size) < 0.5
        chosen[full.column[full.owned]] = True
        chosen[0] = True  # one at least
        taken = chosen.nonzero()[:, 0]
        return full.take(taken, embedding(taken, self.weight, sparse=True))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    CLASSIFIERS.names()  # so that it is full
    monkeypatch.setitem(CLASSIFIERS._classes, NAME, SampledRows)


def tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a tree by its path."""
    if isinstance(tree, Tensor):
        yield path, tree
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield from tensors(value, f"{path}/{key}")


def stored(run: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint of a run."""
    checkpoint = CheckpointStore(run / "checkpoints").find("last")
    files = [checkpoint / "training.pt", *sorted(checkpoint.glob("process-*.pt"))]
    return {f"{file.name}{path}": tensor for file in files for path, tensor in tensors(read_tree(file))}


def assert_same(left: Path, right: Path) -> None:
    expected, found = stored(left), stored(right)
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not tensor.equal(found[name])] == []


def row_optimizer(parts: RunParts) -> Optimizer:
    assert len(parts.optim.optimizers) == 2
    return parts.optim.optimizers[1]


def test_its_rows_are_under_the_schedule_and_in_no_other_optimiser() -> None:
    words = [*WORDS, "optimizer.lr=0.5", "optimizer.class_lr=0.25", "optimizer.momentum=0.8", "schedule.name=cosine"]
    parts = assemble(load_config(TINY, [*words, "schedule.warmup_epochs=1"]))
    (group,) = row_optimizer(parts).param_groups
    first = parts.optim.optimizers[0].param_groups[0]
    assert (group["name"], group["sharded"], group["keep"]) == ("class rows", True, 0.8)
    assert group["lr"] == first["lr"] / 2 == 0.25 / UPDATES_PER_EPOCH
    moved = [id(parameter) for optimizer in parts.optim.optimizers for parameter in optimizer.param_groups[0]["params"]]
    assert len(moved) == len(set(moved))


@pytest.mark.parametrize("words", [(), ("training.accumulate=2", "training.clip_norm=1.0"), ("head=AdaM-Softmax",)])
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, words: tuple[str, ...]
) -> None:
    run_tiny(tmp_path / "whole", *WORDS, *words)
    cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_tiny(tmp_path / "cut", *WORDS, *words, resume=True).progress.complete
    assert_same(tmp_path / "whole", tmp_path / "cut")
    moves = next(tensor for name, tensor in stored(tmp_path / "cut").items() if name.endswith("moves"))
    assert len(set(moves.tolist())) > 1, "some rows waited"


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_rows_whose_gradient_is_made_in_chunks_have_the_bits_of_a_whole_one_and_of_a_resumed_run(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("facelab.head.classifier.LARGEST_WHOLE", 0)
    monkeypatch.setitem(fused_product.CHUNK, "cpu", 3 * 8)  # of the images of a pass, and three classes
    # Adam's counts and a learned number of each class beside the rows; in fp16 an overflow at first moves nothing.
    words = ["optimizer.name=adamw", "head=AdaM-Softmax", f"training.precision={precision}", "training.accumulate=2"]
    given = [*WORDS[1:], *words, "training.clip_norm=1", "training.clip=network", "training.epochs=2"]
    for gradient in ("whole", "chunks"):
        kind = f"classifier={{FullSoftmax: {{gradient: {gradient}}}}}"
        run_tiny(tmp_path / gradient, *given, kind)
    cut_back(tmp_path / "chunks", tmp_path / "cut", UPDATES_PER_EPOCH)
    run_tiny(tmp_path / "cut", *given, kind, resume=True)
    assert_same(tmp_path / "chunks", tmp_path / "cut")
    rows = [
        {name: one for name, one in stored(tmp_path / kind).items() if "/weight" in name}
        for kind in ("whole", "chunks")
    ]
    assert any("/optimizer" not in name for name in rows[0])
    assert rows[0].keys() == rows[1].keys()
    assert all(one.equal(rows[1][name]) for name, one in rows[0].items())


def test_a_run_learns(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", *WORDS, "training.epochs=8")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]


def train_in_process(folder: str, resume: bool) -> int:
    """Runs in each of several processes."""
    from rich.console import Console

    from facelab.run.run import run_training

    CLASSIFIERS.register(NAME)(SampledRows)
    return run_training(load_config(TINY, WORDS), Path(folder), Console(quiet=True), resume=resume).progress.update


@pytest.mark.slow
def test_two_processes_resume_on_two_and_on_one(tmp_path: Path, cut_back: Cut, run_tiny: Run) -> None:
    whole = tmp_path / "whole"
    assert run_processes(train_in_process, 2, str(whole), False) == [12, 12]
    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_processes(train_in_process, 2, str(cut), True) == [12, 12]
    assert_same(whole, cut)

    parts = assemble(load_config(TINY, WORDS))
    restore(parts, CheckpointStore(whole / "checkpoints").find("last"))
    (state,) = row_optimizer(parts).state.values()
    for key in ("average", "moves"):
        shares = [tensor for name, tensor in stored(whole).items() if name.endswith(f"optimizer.1.0.{key}")]
        assert torch.cat(shares).equal(state[key])
    alone = cut_back(whole, tmp_path / "alone", UPDATES_PER_EPOCH)
    assert run_tiny(alone, *WORDS, resume=True).progress.complete
