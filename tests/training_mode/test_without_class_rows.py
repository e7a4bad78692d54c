"""A mode that learns from pairs alone, with a frozen network of its own: no classifier, no head, no class rows."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import facelab
from facelab import distributed
from facelab.data.base import Batch
from facelab.engine.loop import StepOutput
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import normalise
from facelab.run.assembly import assemble
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.training_mode.base import MODES, Supplies, TrainingMode
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
UPDATES_PER_EPOCH = 4
WORDS = (
    "mode=contrastive",
    "classifier=null",
    "head=null",
    "data.sampler={ClassBalanced: {images_per_class: 2}}",
    "training.epochs=4",
    "checkpoint.keep_every_epochs=1",
)


class Contrastive(TrainingMode):
    """Images of one person near each other, others apart; near a teacher's embeddings too, if there is one."""

    def __init__(self, supplies: Supplies, teacher: Path | None = None) -> None:
        super().__init__(supplies)
        self.teacher = None if teacher is None else supplies.load(teacher).requires_grad_(False)

    def step(self, batch: Batch) -> StepOutput:
        embedding = self.embed(batch)
        loss = pair_loss(embedding, batch.label)
        if self.teacher is not None:
            target = self.teacher(normalise(batch.image, self.teacher.input_spec))
            loss = loss + torch.mean(1.0 - F.cosine_similarity(embedding, target))
        return StepOutput(loss)

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), **({} if self.teacher is None else {"teacher": self.teacher})}

    def stored(self, name: str) -> Mapping[str, Tensor]:
        return {} if name == "teacher" else super().stored(name)


def pair_loss(embedding: Tensor, label: Tensor) -> Tensor:
    """Over all pairs of the global batch, alike on every process."""
    unit = F.normalize(distributed.use_commonly(distributed.gather_rows(embedding)))
    label = distributed.gather_labels(label)
    sign = torch.where(label[:, None] == label, -1.0, 1.0)
    return F.softplus(8.0 * sign * (unit @ unit.T - 0.5)).mean()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is known to the tests of this file only."""
    MODES.names()
    monkeypatch.setattr(MODES, "_classes", {**MODES._classes, "contrastive": Contrastive})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    run_training(load_config(TINY, ["training.epochs=1", "seed=5"]), folder, Console(quiet=True))
    return folder


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def moved(run: Path) -> dict[str, Tensor]:
    training = read_tree(last(run) / "training.pt")
    momenta = {str(key): one["momentum_buffer"] for key, one in training["optimization"]["optimizers"][0].items()}
    return {**training["mode"]["network"], **momenta}


def test_it_learns_resumes_bit_equal_and_is_exported(tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    whole = run_tiny(tmp_path / "whole", *WORDS).folder
    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_tiny(cut, *WORDS, resume=True).progress.complete
    expected, found = moved(whole), moved(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert read_tree(last(whole) / "process-00000.pt")["rows"] == {}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    exported = facelab.load(whole)
    assert exported.embed(pixels).shape == (2, 16)
    assert all(torch.equal(tensor, exported.network.state_dict()[key]) for key, tensor in read_model(last(cut)).items())


def first_gradients() -> list[Tensor]:
    """Of the first batch; in evaluation mode BatchNorm does not look at a whole batch."""
    if "contrastive" not in MODES:
        MODES.register("contrastive")(Contrastive)
    parts = assemble(load_config(TINY, WORDS))
    parts.mode.network.eval()
    parts.mode.step(next(iter(parts.feed.batches(0, 0)))).loss.backward()
    return [parameter.grad for parameter in parts.mode.network.parameters() if parameter.grad is not None]


def train_and_take_gradients(folder: Path) -> list[Tensor]:
    gradients = first_gradients()
    run_training(load_config(TINY, [*WORDS, "training.epochs=1"]), folder, Console(quiet=True))
    return gradients


def test_two_processes_have_the_gradients_of_one_and_one_goes_on_from_them(tmp_path: Path, run_tiny: Run) -> None:
    alone, run = first_gradients(), tmp_path / "run"
    for shared in distributed.run_processes(train_and_take_gradients, 2, run):
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-5)
    assert len(list(last(run).glob("process-*.pt"))) == 2
    assert run_tiny(run, *WORDS, "training.epochs=2", resume=True, allow_changes=True).progress.complete


def test_a_frozen_network_is_kept_by_its_hash(tmp_path: Path, run_tiny: Run, cut_back: Cut, teacher: Path) -> None:
    words = (*WORDS, f"mode.contrastive.teacher={teacher}")
    whole = run_tiny(tmp_path / "whole", *words).folder
    mode = read_tree(last(whole) / "training.pt")["mode"]
    assert mode.keys() == {"network", "frozen"}
    assert mode["frozen"].keys() == {"teacher"}
    assert read_tree(last(whole) / "process-00000.pt")["local"]["mode"].keys() == {"network"}
    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    run_tiny(cut, *words, resume=True)
    expected, found = moved(whole), moved(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    run_tiny(teacher, "training.epochs=2", "seed=5", resume=True, allow_changes=True)
    again = cut_back(whole, tmp_path / "again", UPDATES_PER_EPOCH)
    with pytest.raises(CheckpointError, match=r"the frozen network 'teacher' is another one .* \([0-9a-f]{32}\)"):
        run_tiny(again, *words, resume=True)


def test_a_mode_that_needs_class_rows_says_what_would_work() -> None:
    with pytest.raises(ConfigError, match="learns by class rows, .* classifier: null; name one, such as classifier: F"):
        assemble(load_config(TINY, ["classifier=null", "head=null"]))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["classifier=null"], r"classifier is null, but head is {'CosFace': .*; set head: null too, or name a classif"),
        (["head=null", "classifier=FullSoftmax"], "head is null, but classifier is 'FullSoftmax': .*, or name a head"),
    ],
)
def test_head_and_classifier_go_together(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config(TINY, words)


def test_where_nothing_is_said_of_the_other_it_is_null_too() -> None:
    config = load_config(TINY, ["head=null"])
    assert (config.head, config.classifier) == (None, None)
    assert load_config(TINY, []).classifier == "FullSoftmax"
