"""Metric learning as a run: with and without class rows, centers over processes, refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from facelab.errors import ConfigError
from facelab.run.assembly import assemble
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.training_mode.triplet.mode import Triplet
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model, read_rows
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
PAIRS = "data.sampler={ClassBalanced: {images_per_class: 4}}"
ALONE = ("mode=triplet", "classifier=null", "head=null", PAIRS)
QUEUE = "QualityQueue: {weight: 0.1, size: 100, threshold: 0.4}"
LOSSES = f"{{Triplet: {{select: all, margin: 1}}, Contrastive: 1, TupletMargin: {{scale: 8}}, Center: 0.1, {QUEUE}}}"
EVERYTHING = f"mode.triplet.losses={LOSSES}"


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def test_every_objective_at_once_learns_and_resumes_to_the_same_bits(
    tmp_path: Path, run_tiny: Run, cut_back: Cut
) -> None:
    words = (*ALONE, EVERYTHING, "training.epochs=4", "checkpoint.keep_every_epochs=1", "training.log_every=4")
    whole = run_tiny(tmp_path / "whole", *words).folder
    cut = cut_back(whole, tmp_path / "cut", 8)
    run_tiny(cut, *words, resume=True)
    expected, found = (read_model(last(run)) for run in (whole, cut))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    rows = [read_rows(last(run), 0, 8, "Center")["weight"] for run in (whole, cut)]
    assert torch.equal(*rows)
    assert bool(rows[0].any(dim=1).all())
    queues = [read_tree(last(run) / "training.pt")["mode"]["QualityQueue"] for run in (whole, cut)]
    assert all(torch.equal(tensor, queues[1][name]) for name, tensor in queues[0].items())
    named = {"network", "Triplet", "Center", "QualityQueue", "frozen"}
    assert read_tree(last(whole) / "training.pt")["mode"].keys() == named
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    nearest = [float(line.split('"nearest": ')[1].split(",")[0].rstrip("}")) for line in lines if '"nearest"' in line]
    assert nearest[-1] > nearest[0] + 0.1, "more images have their own person nearest"


def test_it_stands_beside_a_margin_head() -> None:
    mode = assemble(load_config(TINY, ["mode=triplet", "mode.triplet.losses={Center: 0.5}"])).mode
    assert isinstance(mode, Triplet)
    assert mode.row_owners().keys() == {"classifier", "Center"}
    without = assemble(load_config(TINY, [*ALONE, "mode.triplet.classification=0"])).mode
    assert without.row_owners() == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["mode=triplet", "data.source.SyntheticFaces={identities: 64, per_identity: 2}", "training.batch_size=4"],
            r"the first 32 batches hold only \d+ such pairs; draw several images of each person: data.sampler",
        ),
        ([*ALONE, "mode.triplet.losses={}"], "the mode triplet has no loss; name one"),
        ([*ALONE, "mode.triplet.losses={Center: 1}"], "Center alone draws all people to one point"),
        ([*ALONE, "mode.triplet.losses={Triplett: 1}"], "unknown objective 'Triplett'. Did you mean 'Triplet'"),
        ([*ALONE, "mode.triplet.losses={Triplet: {weight: yes}}"], "triplet losses.Triplet.weight is True"),
    ],
)
def test_refusals(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        assemble(load_config(TINY, words))
