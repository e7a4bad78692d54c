"""What does each process hold of a network, whole (`ddp`) or in parts (`fsdp`)?

Gloo processes on this machine make some updates by AdamW of random images, each network and form in processes of its
own. Bytes of parameters, gradients and optimiser state are counted, which is the same on GPUs; beside them is the most
memory of a process in each phase, above what it had before it built anything, activations included, and the time of an
update, which on a CPU says little of GPUs. The losses of both forms are the same.

    python benchmarks/parallel.py --out parallel.json
    python benchmarks/parallel.py --networks vit_l --forms fsdp
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer
from machine import machine
from rich.console import Console
from rich.table import Table

from facelab import distributed
from facelab.adapter.base import AdaptedBackbone
from facelab.adapter.lora import LoRA
from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import build
from facelab.engine.optimization import Optimization, OptimizerConfig, parameter_groups
from facelab.engine.replica import Parallel, Replica, replicate
from facelab.engine.schedules import ScheduleConfig
from facelab.engine.sharded import Sharded

ADAPTED = " with LoRA"
NETWORKS = ("vit_l", "PETALSwin", f"PETALSwin{ADAPTED}")
PHASES = ("build", "share out", "forward", "backward", "optimizer")
GIGA = 1e9


@dataclass(frozen=True)
class Held:
    """What the fullest process of one network in one form holds, in bytes, and the time of its updates.

    Attributes:
        network: Entry of the catalogue.
        parallel: The form.
        parameters: Bytes of parameters between the updates.
        gradients: Bytes of gradients before the optimiser takes them.
        state: Bytes of the optimiser's state.
        peaks: Most memory in each of `PHASES` beside what the process had before; 0 where the system does not tell.
        losses: Mean over the processes of each update.
        seconds: Of the last update.
    """

    network: str
    parallel: Parallel
    parameters: int
    gradients: int
    state: int
    peaks: dict[str, int]
    losses: list[float]
    seconds: float


def network_of(name: str) -> Backbone:
    """An entry of the catalogue, with updates of rank 8 in each linear layer where its name says so."""
    torch.manual_seed(0)
    network = build(BACKBONES, name.removesuffix(ADAPTED))
    return AdaptedBackbone(network, LoRA(rank=8)) if name.endswith(ADAPTED) else network


class Peaks:
    """The most memory of this process in each phase, beside what it has now; 0 where the system does not tell."""

    def __init__(self) -> None:
        self._before = memory("VmRSS")
        self._phase: str | None = None
        self.of = dict.fromkeys(PHASES, 0)

    def begin(self, phase: str | None) -> None:
        """A phase begins, perhaps for another time, or none; the one before ends."""
        if self._phase is not None:
            self.of[self._phase] = max(self.of[self._phase], memory("VmHWM") - self._before)
        self._phase = phase
        forget = Path("/proc/self/clear_refs")
        if forget.exists():
            forget.write_text("5")  # the most memory is looked for anew


def memory(kind: str) -> int:
    """Bytes of memory of this process now (``VmRSS``) or at most (``VmHWM``); 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))


def measure(name: str, parallel: Parallel, images: int, updates: int) -> Held:
    """One process's part."""
    peaks = Peaks()
    peaks.begin("build")
    network = network_of(name).train()
    peaks.begin("share out")
    replica: Replica[Backbone] = Sharded(network, network.fsdp_units) if parallel == "fsdp" else replicate(network)
    config = OptimizerConfig(name="adamw", lr=1e-4)
    groups = parameter_groups([network], config)
    sizes = {"total_updates": updates, "updates_per_epoch": updates}
    optim = Optimization(groups, config, ScheduleConfig(name="constant"), replicas=[replica], **sizes)
    optim.optimizers[0].register_step_pre_hook(lambda *_: peaks.begin("optimizer"))
    random = torch.Generator().manual_seed(distributed.rank())
    image = torch.randn(images, 3, *network.input_spec.size, generator=random)
    losses, seconds = [], 0.0
    for _ in range(updates):
        begun = time.perf_counter()
        peaks.begin("forward")
        loss = replica(image).square().mean()
        losses.append(distributed.all_reduce_sum(loss).item() / distributed.world_size())
        peaks.begin("backward")
        optim.update(loss)
        peaks.begin(None)
        seconds = time.perf_counter() - begun
    held = [replica.parts().get(one, one) for one in network.parameters()]
    states = [one for kept in optim.optimizers[0].state.values() for one in kept.values()]
    trained = [one for one in held if one.requires_grad]
    return Held(name, parallel, size_of(held), size_of(trained), size_of(states), peaks.of, losses, seconds)


def size_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def in_giga(size: int) -> str:
    """Bytes in GB, to be read."""
    return f"{size / GIGA:.2f}"


def main(
    networks: Annotated[list[str] | None, typer.Option(help="Entries of the catalogue.")] = None,
    processes: Annotated[int, typer.Option(help="Gloo processes on this machine.")] = 2,
    images: Annotated[int, typer.Option(help="Images of a process in an update; BatchNorm needs two.")] = 2,
    updates: Annotated[int, typer.Option(help="Updates.")] = 2,
    forms: Annotated[list[str] | None, typer.Option(help="ddp, fsdp.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare what processes hold."""
    held = Table("network", "", "parameters", "gradients", "state", "together", title="GB held by a process")
    most = Table("network", "", *PHASES, "s", title="GB, the most in each phase, and s of the last update")
    rows: list[Held] = []
    for name in networks or NETWORKS:
        for parallel in forms or get_args(Parallel):
            shares = distributed.run_processes(measure, processes, name, parallel, images, updates)
            row = max(shares, key=lambda one: one.parameters + one.gradients + one.state)
            row.peaks.update({phase: max(share.peaks[phase] for share in shares) for phase in PHASES})
            rows.append(row)
            sizes = (row.parameters, row.gradients, row.state)
            held.add_row(name, parallel, *map(in_giga, (*sizes, sum(sizes))))
            most.add_row(name, parallel, *map(in_giga, row.peaks.values()), f"{row.seconds:.1f}")
    Console().print(held, most)
    if out is not None:
        out.write_text(
            json.dumps({"machine": machine(), "processes": processes, "rows": [asdict(row) for row in rows]})
        )


if __name__ == "__main__":
    typer.run(main)
