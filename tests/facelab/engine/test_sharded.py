"""Networks shared out over processes: two processes against one, for updates, states, accumulation and evaluation."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facelab import distributed
from facelab.adapter.base import AdaptedBackbone
from facelab.adapter.lora import LoRA
from facelab.backbone.base import Backbone
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.backbone.swin import Swin
from facelab.backbone.vit import ViT
from facelab.engine.optimization import Optimization, OptimizerConfig, parameter_groups
from facelab.engine.replica import Compression, Parallel, Replica, replicate
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import ConfigError
from facelab.inputs import InputSpec

IMAGES, UPDATES, ACCUMULATE = 8, 2, 2
SPEC = InputSpec(height=16, width=16)
State = dict[str, Any]


def vit(checkpointing: bool = False) -> ViT:
    """Nine patches, seven numbers out: on two processes nothing can be shared out evenly."""
    fixed: dict[str, Any] = {"drop_path_rate": 0.0, "mask_ratio": 0.0, "checkpointing": checkpointing}
    return ViT(SPEC, patch=5, dim=14, depth=2, heads=2, feat_dim=7, patch_gate=True, **fixed)


def swin() -> Swin:
    fixed: dict[str, Any] = {"drop_path_rate": 0.0, "output": "linear"}
    return Swin(SPEC, patch=4, dim=6, depths=(1, 2), heads=(1, 2), window=2, feat_dim=7, **fixed)


NETWORKS: Mapping[str, Callable[[], Backbone]] = {
    "ViT": vit,
    "ViT, computed again": partial(vit, checkpointing=True),
    "Swin": swin,
    "adapted Swin": lambda: AdaptedBackbone(swin(), LoRA(rank=2, dropout=0.0)),
}
OPTIMIZERS = {"sgd": OptimizerConfig(lr=0.5), "adamw": OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1)}
OF = {"ViT": "adamw", "ViT, computed again": "sgd", "Swin": "sgd", "adapted Swin": "adamw"}


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        middle: Weights and optimiser after half of the updates, as the first process stores them.
        end: The same at the end.
        norms: () norm of the gradients of each update.
        embeddings: Of all images by the view for evaluation, after training.
        held: Numbers that this process holds of all parameters.
        kept: Bytes that it keeps of large tensors that were dropped.
    """

    middle: State
    end: State
    norms: list[Tensor]
    embeddings: Tensor
    held: int
    kept: int


def images(seed: int) -> Tensor:
    return torch.randn(IMAGES, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def replica_of(network: Backbone, form: Parallel, compression: Compression = "none") -> Replica[Backbone]:
    if form == "ddp":
        return replicate(network, compression)
    from facelab.engine.sharded import Sharded

    return Sharded(network, network.fsdp_units, compression)


def built(name: str, form: Parallel) -> tuple[Replica[Backbone], Optimization]:
    torch.manual_seed(0)
    network = NETWORKS[name]().double().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in network.modules():  # statistics of a part of the batch would differ from those of the whole
        if isinstance(part, _BatchNorm):
            part.eval()
    replica = replica_of(network, form)
    config, schedule = OPTIMIZERS[OF[name]], ScheduleConfig(name="constant")
    sizes = {"total_updates": 2 * UPDATES, "updates_per_epoch": UPDATES, "accumulate": ACCUMULATE}
    groups = parameter_groups([network], config)
    return replica, Optimization(groups, config, schedule, clip_norm=0.02, replicas=[replica], **sizes)


def update(replica: Replica[Backbone], optim: Optimization, number: int) -> Tensor:
    """One update from the same images, however many processes and passes share them."""
    start, stop = distributed.class_range(IMAGES, distributed.rank(), distributed.world_size())
    first, second = images(number)[start:stop].chunk(2)
    with replica.no_sync():
        assert optim.update(replica(first).square().mean()) is None
    norm = optim.update(replica.features(second).embedding.square().mean())
    assert norm is not None
    return norm


def stored(replica: Replica[Backbone], optim: Optimization) -> State:
    tree = {"network": replica.state(), "optimizer": optim.state_dict()["optimizers"][0]}
    gathered: State = replica.gathered(tree)
    return {name: {key: _copied(value) for key, value in gathered[name].items()} for name in ("network", "optimizer")}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return value.detach().clone() if isinstance(value, Tensor) else value


def kept_of_dropped() -> int:
    """Bytes of four blocks of 8 MiB that stay with this process when they are dropped and a later one lives on."""
    torch.ones(1 << 22)  # glibc then keeps what is smaller than this
    before = resident()
    blocks, later = [torch.ones(1 << 21) for _ in range(4)], torch.ones(1 << 21)
    del blocks
    return resident() - before - later.nbytes


def resident() -> int:
    """Bytes of memory of this process; 0 where the system does not tell."""
    statistics = Path("/proc/self/statm")
    return int(statistics.read_text().split()[1]) * resource.getpagesize() if statistics.exists() else 0


def trained(name: str, form: Parallel, start: State | None = None) -> Outcome:
    """Train from the beginning, or from the middle on."""
    replica, optim = built(name, form)
    middle, norms = start, []
    if start is not None:
        replica.load(start["network"])
        state = optim.state_dict()
        optim.load_state_dict({**state, "updates": UPDATES, "optimizers": [start["optimizer"]]})
        middle = stored(replica, optim)
    for number in range(0 if start is None else UPDATES, 2 * UPDATES):
        if number == UPDATES and start is None:
            middle = stored(replica, optim)
        norms.append(update(replica, optim, number))
    held = sum(replica.parts().get(one, one).numel() for one in replica.network.parameters())
    end = stored(replica, optim)
    with replica.inference_view() as network, torch.no_grad():
        # As many passes as there are processes before: each embeds as it likes.
        for _ in range(distributed.rank() + 1):
            embeddings = network.eval()(images(9))
    assert middle is not None
    return Outcome(middle, end, norms, embeddings, held, kept_of_dropped())


def everything(middle: dict[str, State]) -> dict[tuple[str, str], Outcome]:
    """Each network in each form, from the beginning, and by FSDP from where one process was in the middle."""
    found = {(name, form): trained(name, form) for name in middle for form in ("ddp", "fsdp")}
    return found | {(name, "on"): trained(name, "fsdp", middle[name]) for name in middle}


@dataclass(frozen=True)
class Case:
    """Outcomes of one network: of one process, and of each of two by `everything`."""

    name: str
    one: Outcome
    two: list[dict[tuple[str, str], Outcome]]


OTHERS = pytest.param(("ViT", "Swin"), marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[("ViT, computed again", "adapted Swin"), OTHERS], ids=" and ".join)
def cases(request: pytest.FixtureRequest) -> list[Case]:
    one = {name: trained(name, "ddp") for name in request.param}
    two = distributed.run_processes(everything, 2, {name: outcome.middle for name, outcome in one.items()})
    return [Case(name, outcome, two) for name, outcome in one.items()]


def flat(state: State) -> dict[str, Tensor]:
    moments = {f"{index}.{key}": value for index, kept in state["optimizer"].items() for key, value in kept.items()}
    return {**state["network"], **moments}


def assert_near(found: State, expected: State) -> None:
    assert flat(found).keys() == flat(expected).keys()
    for name, tensor in flat(expected).items():
        torch.testing.assert_close(flat(found)[name], tensor, rtol=1e-9, atol=1e-12, msg=name)


def test_updates_and_embeddings_are_those_of_one_process(cases: list[Case]) -> None:
    for case in cases:
        for form in ("ddp", "fsdp"):
            assert_near(case.two[0][case.name, form].end, case.one.end)
            for process in case.two:
                found = process[case.name, form]
                torch.testing.assert_close(found.norms, case.one.norms, rtol=1e-9, atol=0)
                torch.testing.assert_close(found.embeddings, case.one.embeddings, rtol=1e-9, atol=1e-12)


def test_any_form_goes_on_where_another_one_was(cases: list[Case]) -> None:
    for case in cases:
        middle, taken = flat(case.one.middle), flat(case.two[0][case.name, "on"].middle)
        assert middle.keys() == taken.keys()
        assert all(tensor.equal(taken[key]) for key, tensor in middle.items()), "what is loaded is stored again"
        assert_near(case.two[0][case.name, "on"].end, case.one.end)
        assert_near(trained(case.name, "ddp", case.two[0][case.name, "fsdp"].middle).end, case.one.end)


def test_processes_share_the_parameters_out(cases: list[Case]) -> None:
    for case in cases:
        whole = {process[case.name, "ddp"].held for process in case.two}
        parts = [process[case.name, "fsdp"].held for process in case.two]
        assert whole == {sum(parts)}
        assert max(parts) < 0.7 * sum(parts)


def test_gathered_units_leave_no_memory_behind(cases: list[Case]) -> None:
    for case in cases:
        for process in case.two:
            assert process[case.name, "fsdp"].kept < 8 << 20


class Scalar(nn.Module):
    """A parameter without rows."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))


def test_what_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="shares a network out over processes, and there is one; start several"):
        replica_of(swin(), "fsdp")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="MobileFaceNet names no blocks .*; ViT and Swin do; set training.parallel"):
        replica_of(MobileFaceNet(), "fsdp")
    network = swin()
    network.add_module("gate", Scalar())
    with pytest.raises(ConfigError, match="'gate.slope' is a single number; choose a gate that is not trained"):
        replica_of(network, "fsdp")
