"""What does each process hold of a network, whole (`ddp`) or in parts (`fsdp`)?

Gloo processes on this machine make some updates by AdamW of random images, each network and form in processes of its
own. Bytes of parameters, gradients and optimiser state are counted, which is the same on GPUs; beside them is the most
memory of a process during the updates, above what it had before it built anything, activations included, and the time
of an update, which on a CPU says little of GPUs.

    python benchmarks/parallel.py --out parallel.json
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
        peak: Most memory during the updates beside what the process had before it built the network; 0 if unknown.
        seconds: Of the last update.
    """

    network: str
    parallel: Parallel
    parameters: int
    gradients: int
    state: int
    peak: int
    seconds: float


def network_of(name: str) -> Backbone:
    """An entry of the catalogue, with updates of rank 8 in each linear layer where its name says so."""
    torch.manual_seed(0)
    network = build(BACKBONES, name.removesuffix(ADAPTED))
    return AdaptedBackbone(network, LoRA(rank=8)) if name.endswith(ADAPTED) else network


def resident(most: bool = False) -> int:
    """Bytes of memory of this process, or the most of them since `forget_peak`; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [line for line in lines if line.startswith("VmHWM" if most else "VmRSS")]
    return 1024 * int(found[0].split()[1]) if found else 0


def forget_peak() -> None:
    """Begin to look for the most memory anew, where the system lets us."""
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5")


def measure(name: str, parallel: Parallel, images: int, updates: int) -> Held:
    """One process's part."""
    before = resident()
    network = network_of(name)
    replica: Replica[Backbone] = (
        Sharded(network, network.fsdp_units) if parallel == "fsdp" else replicate(network.train())
    )
    config = OptimizerConfig(name="adamw", lr=1e-4)
    groups = parameter_groups([network], config)
    sizes = {"total_updates": updates, "updates_per_epoch": updates}
    optim = Optimization(groups, config, ScheduleConfig(name="constant"), replicas=[replica], **sizes)
    image = torch.randn(images, 3, *network.input_spec.size)
    forget_peak()
    seconds = 0.0
    for _ in range(updates):
        begun = time.perf_counter()
        optim.update(replica(image).square().mean())
        seconds = time.perf_counter() - begun
    peak = resident(most=True) - before
    held = [replica.parts().get(one, one) for one in network.parameters()]
    states = [one for kept in optim.optimizers[0].state.values() for one in kept.values()]
    trained = [one for one in held if one.requires_grad]
    return Held(name, parallel, size_of(held), size_of(trained), size_of(states), peak, seconds)


def size_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main(
    networks: Annotated[list[str] | None, typer.Option(help="Entries of the catalogue.")] = None,
    processes: Annotated[int, typer.Option(help="Gloo processes on this machine.")] = 2,
    images: Annotated[int, typer.Option(help="Images of a process in an update; BatchNorm needs two.")] = 2,
    updates: Annotated[int, typer.Option(help="Updates.")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare what processes hold."""
    table = Table("network", "", "parameters", "gradients", "state", "together", "peak", "s", title="GB a process")
    rows: list[Held] = []
    for name in networks or NETWORKS:
        for parallel in get_args(Parallel):
            shares = distributed.run_processes(measure, processes, name, parallel, images, updates)
            row = max(shares, key=lambda one: one.parameters + one.gradients + one.state)
            rows.append(row)
            together = row.parameters + row.gradients + row.state
            sizes = (row.parameters, row.gradients, row.state, together, row.peak)
            table.add_row(name, parallel, *(f"{size / GIGA:.2f}" for size in sizes), f"{row.seconds:.1f}")
    Console().print(table)
    if out is not None:
        out.write_text(
            json.dumps({"machine": machine(), "processes": processes, "rows": [asdict(row) for row in rows]})
        )


if __name__ == "__main__":
    typer.run(main)
