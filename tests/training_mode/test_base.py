"""What every mode inherits: how its networks are run, and what checkpoints hold of several owners of class rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.data.base import Batch
from facelab.engine.loop import StepOutput
from facelab.engine.replica import N, Replica
from facelab.errors import CheckpointError, ConfigError
from facelab.head.base import MarginHead
from facelab.head.classifier import CLASSIFIERS, Classifier
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.inputs import InputSpec
from facelab.run.assembly import RunParts, assemble, open_optimization, restore, take_snapshot
from facelab.run.settings import load_config
from facelab.training_mode.base import Supplies, TrainingMode, check_parts
from facelab.training_mode.conventional.mode import Conventional
from facelab.weights.checkpoint import CheckpointStore

TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
CLASSES = {"classifier": 8, "second": 5}


def small() -> MobileFaceNet:
    return MobileFaceNet(InputSpec(height=32, width=32), feat_dim=16, width=0.25)


class TwoOwners(Conventional):
    """Class rows twice, of different numbers of classes."""

    def __init__(self, supplies: Supplies, ema: float | None = None) -> None:
        super().__init__(supplies, ema)
        self.second = replace(supplies, num_classes=CLASSES["second"], seed=1).build_classifier()

    def step(self, batch: object) -> StepOutput:
        rows = [tensor for owner in self.row_owners().values() for tensor in owner.row_tensors().values()]
        return StepOutput(sum((tensor.square().sum() for tensor in rows), torch.zeros(())))

    def row_owners(self) -> Mapping[str, Classifier]:
        return {**super().row_owners(), "second": self.second}


def parts_of_two_owners() -> RunParts:
    parts = assemble(load_config(TINY))
    mode = TwoOwners(Supplies(small(), CLASSES["classifier"], "CosFace"))
    return replace(parts, mode=mode, optim=open_optimization(parts.config, mode, 4, parts.device))


def rows_of(parts: RunParts) -> dict[str, Tensor]:
    """Rows of this process and their momenta, by owner."""
    moments = parts.optim.optimizers[0].state
    rows = {name: owner.row_tensors()["weight"] for name, owner in parts.mode.row_owners().items()}
    return {name: row.detach() for name, row in rows.items()} | {
        f"{name} momentum": moments[row]["momentum_buffer"] for name, row in rows.items()
    }


def train_and_save(folder: Path) -> dict[str, Tensor]:
    parts = parts_of_two_owners()
    for _ in range(2):
        parts.optim.update(parts.mode.step(object()).loss)
    CheckpointStore(folder).save(2, take_snapshot(parts, parts.progress))
    return rows_of(parts)


def test_rows_of_two_owners_come_back_on_another_number_of_processes(tmp_path: Path) -> None:
    shares = distributed.run_processes(train_and_save, 2, tmp_path)
    parts = parts_of_two_owners()
    restore(parts, CheckpointStore(tmp_path).find("last"))
    found = rows_of(parts)
    assert {name: len(found[name]) for name in CLASSES} == CLASSES
    for name, rows in found.items():
        assert torch.equal(rows, torch.cat([share[name] for share in shares])), name
        assert rows.abs().max() > 0


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "classifier=SubCenter",
            "do not fit the owner of class rows FullSoftmax: 1 of another shape .'weight' 8x16 instead",
        ),
        (
            "data.source.SyntheticFaces.identities=6",
            "has 8 class rows of its classifier, but FullSoftmax owns 6 on all processes together",
        ),
    ],
)
def test_rows_of_another_owner_or_another_number_of_rows_are_refused(tmp_path: Path, word: str, sentence: str) -> None:
    parts = assemble(load_config(TINY))
    CheckpointStore(tmp_path).save(1, take_snapshot(parts, parts.progress))
    with pytest.raises(CheckpointError, match=sentence):
        restore(assemble(load_config(TINY, [word])), CheckpointStore(tmp_path).find("last"))


def test_what_no_checkpoint_keeps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be written, but the run could not be resumed."""
    parts = assemble(load_config(TINY))
    with monkeypatch.context() as changed:
        changed.setattr(parts.mode, "state", lambda: {"mean": np.float32(1)})
        with pytest.raises(
            ConfigError, match="what the mode Conventional wants to remember, 'mean', is of the type float32"
        ):
            take_snapshot(parts, parts.progress)
    (parameter, *_) = parts.optim.optimizers[0].state
    parts.optim.optimizers[0].state[parameter]["seen"] = {3}
    with pytest.raises(
        ConfigError, match=r"what the optimisers want to remember, 'optimizers\.0\.\d+\.seen', is of the type set"
    ):
        take_snapshot(parts, parts.progress)


class Doubling(Replica[N]):
    """A form of its own: twice what the network gives."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        return 2.0 * super().__call__(*inputs)


def test_the_program_chooses_how_networks_are_run() -> None:
    network, index = small(), torch.arange(2)
    mode, plain = Conventional(Supplies(network, 3, replicate=Doubling)), Conventional(Supplies(network, 3))
    network.eval()
    batch = Batch(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), index, index)
    assert torch.equal(mode.embed(batch), 2.0 * plain.embed(batch))
    assert mode.inference() is mode.replica


class Projected(TrainingMode):
    """Beside the backbone a layer is in training, which is none."""

    def __init__(self, supplies: Supplies) -> None:
        super().__init__(supplies)
        torch.manual_seed(distributed.rank())  # replicas start equal nevertheless
        self.projection = supplies.replicate(nn.Linear(16, 2))

    def step(self, batch: Batch) -> StepOutput:
        return StepOutput(self.projection(self.embed(batch)).square().mean())

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), "projection": self.projection.network}

    def replicas(self) -> list[Replica[Any]]:
        return [self.replica, self.projection]


def projection_after(passes_alone: int) -> list[Tensor]:
    """Weight, gradient and gradient norm of the projection; processes see different images."""
    torch.manual_seed(0)
    mode = Projected(Supplies(small(), 3))
    mode.network.eval()
    index = torch.arange(2)
    image = torch.full((2, 3, 32, 32), 50 * distributed.rank(), dtype=torch.uint8)
    batch = Batch(image, index, index)
    with mode.between_updates():
        for _ in range(passes_alone):
            mode.step(batch).loss.backward()
    alone = [parameter.grad.clone() for parameter in mode.projection.network.parameters() if parameter.grad is not None]
    mode.step(batch).loss.backward()
    weight = mode.projection.network.weight
    assert weight.grad is not None
    assert mode.networks()["projection"] in mode.trained_modules()
    mode.load_state(mode.state())
    assert mode.state()["projection"].keys() == {"weight", "bias"} == mode.stored("projection").keys()
    return [weight.detach(), weight.grad, mode.projection.gradient_norm(), *alone]


def test_a_layer_beside_the_backbone_is_trained_and_stored_alike() -> None:
    first, second = distributed.run_processes(projection_after, 2, 1)
    assert all(torch.equal(one, other) for one, other in zip(first[:3], second[:3], strict=True))
    assert not torch.equal(first[3], second[3])


class Probe(Conventional):
    """Class rows learn over a network that stays, whose source stands in the settings."""

    def __init__(self, supplies: Supplies) -> None:
        supplies.backbone.requires_grad_(False)
        super().__init__(supplies)

    def stored(self, name: str) -> Mapping[str, Tensor]:
        return {}


def rows_over_a_frozen_network() -> tuple[Tensor, Tensor]:
    """Gradient norm of the network, and gradient of this process's rows, of a mode that was resumed."""
    torch.manual_seed(0)
    mode = Probe(Supplies(small(), 4, "CosFace"))
    state, local = mode.state(), mode.local_state()
    mode.load_state(state)
    mode.load_local_state(local)
    index = torch.arange(2)
    mode.step(Batch(torch.full((2, 3, 32, 32), 50, dtype=torch.uint8), index, index)).loss.backward()
    gradient = mode.classifier.row_tensors()["weight"].grad
    assert gradient is not None
    return mode.replica.gradient_norm(), gradient


@pytest.mark.parametrize("processes", [1, 2])
def test_class_rows_alone_are_trained_over_a_frozen_network(processes: int) -> None:
    for norm, gradient in distributed.run_processes(rows_over_a_frozen_network, processes):
        assert norm == 0
        assert gradient.norm() > 0
        assert len(gradient) == 4 // processes


class Learning(FullSoftmax):
    """Learns a number that belongs to no class."""

    def __init__(self, num_classes: int, feat_dim: int, head: MarginHead, seed: int = 0) -> None:
        super().__init__(num_classes, feat_dim, head, seed)
        self.gain = nn.Parameter(torch.ones(1))


class Named(Conventional):
    """Gives names to a second network and to its owner of class rows."""

    def __init__(self, supplies: Supplies, network: str = "other", owner: str = "classifier") -> None:
        super().__init__(supplies)
        self.names = network, owner

    def networks(self) -> Mapping[str, nn.Module]:
        return {**super().networks(), self.names[0]: self.network}

    def row_owners(self) -> Mapping[str, Classifier]:
        return {self.names[1]: self.classifier}


@pytest.mark.parametrize(
    ("names", "taken"), [(("other", "network"), "network"), (("frozen", "rows"), "frozen"), (("a", "frozen"), "frozen")]
)
def test_names_under_which_a_checkpoint_would_lose_something_are_refused(names: tuple[str, str], taken: str) -> None:
    with pytest.raises(ConfigError, match=f"the mode Named gives the name '{taken}', which is taken"):
        check_parts(Named(Supplies(small(), 3), *names))
    check_parts(Named(Supplies(small(), 3)))


def test_an_owner_learns_nothing_but_rows_and_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSIFIERS._classes, "Learning", Learning)
    with pytest.raises(ConfigError, match="Learning learns 'gain', which is none of its row_tensors"):
        check_parts(Conventional(Supplies(small(), 3, "CosFace", "Learning")))
    check_parts(Conventional(Supplies(small(), 3, "UniFace")))  # learns a threshold


def test_supplies_without_a_loader_load_nothing() -> None:
    with pytest.raises(ConfigError, match="'teacher' cannot be loaded"):
        Supplies(small(), 3).load(Path("teacher"))
