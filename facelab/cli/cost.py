"""``facelab cost``: size, work, memory and speed of backbones, beside what was published of them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from facelab.cli.commands import command
from facelab.cli.names import complete_names
from facelab.cli.options import PluginOption, within, writable
from facelab.errors import ConfigError

if TYPE_CHECKING:
    from facelab.backbone.base import Backbone
    from facelab.catalogue import Spec
    from facelab.cost.cost_table import CostRow, Speed

GLOB = "*?["
BATCH = 64
DEFAULTS = {"feat_dim": 512}  # the length of embedding of every published number


@command("cost", place=100)
def cost_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Of `facelab list backbones`, a pattern such as 'ResNet*', or '{r50: {input_spec: {height: 56}}}'; "
            "without any, all with published numbers.",
            autocompletion=complete_names("backbones"),
        ),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure how fast they run on this CPU.")] = True,
    seconds: Annotated[
        float,
        typer.Option(
            help="For each of a network's two measurements; slow ones take one run.", callback=within(0, 3600)
        ),
    ] = 5.0,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Number format of the measured speed.")] = "fp32",
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this file too.", callback=writable())] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file too.", callback=writable())] = None,
    plugins: PluginOption = None,
) -> None:
    """Print parameters, multiply-accumulates, memory and speed of backbones beside the published numbers."""
    from facelab.cost.cost_table import as_csv, as_json, cost_tables, reasons
    from facelab.cost.thop_count import thop_missing
    from facelab.run.tracking import environment
    from facelab.weights.whole_file import write_whole

    specs, console = chosen(names or []), Console(markup=False)
    rows = []
    with console.status("") as status:
        for place, (name, spec) in enumerate(specs.items(), 1):
            status.update(f"{name}, {place} of {len(specs)}")
            rows.append(cost_of(name, spec, seconds if speed else None, precision))
    machine = environment()
    for part in (*cost_tables(rows), reasons(rows), thop_missing()):
        if part:
            console.print(part, highlight=False)
    if speed:
        console.print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {precision}")
    for path, text in ((json, as_json(rows, machine)), (csv, as_csv(rows))):
        if path is not None:
            console.print(write_whole(path, text), highlight=False)


def chosen(words: Sequence[str]) -> "dict[str, Spec]":
    """Backbones by the words of the command line; without any, all with published numbers.

    Raises:
        ConfigError: If a word means nothing.
    """
    from facelab.backbone.base import BACKBONES
    from facelab.catalogue import entries, resolve
    from facelab.cost.published_costs import PUBLISHED
    from facelab.outside.yaml import parse_yaml

    known = sorted({*BACKBONES.names(), *entries(BACKBONES)})
    specs: dict[str, Spec] = {}
    for word in words or PUBLISHED:
        if word.startswith("{"):
            specs[word] = parse_yaml(word, f"'{word}'")
        elif any(sign in word for sign in GLOB):
            found = [name for name in known if fnmatchcase(name.lower(), word.lower())]
            if not found:
                raise ConfigError(f"no backbone matches '{word}'. Known: {', '.join(known)}.")
            specs |= {name: name for name in found}
        else:
            specs[word] = word
    for spec in specs.values():
        resolve(BACKBONES, spec)  # before the first of them is measured
    return specs


def cost_of(name: str, spec: "Spec", seconds: float | None, precision: Literal["fp32", "bf16"]) -> "CostRow":
    """The row of one backbone.

    Args:
        name: What the row is called.
        spec: What to build.
        seconds: Time for each measurement of speed; None for no measurement.
        precision: Number format of that.
    """
    import torch

    from facelab.cost.activation_memory import activation_bytes
    from facelab.cost.cost_table import CostRow
    from facelab.cost.network_cost import count_operations, network_cost, used_parameters
    from facelab.cost.published_costs import PUBLISHED
    from facelab.cost.thop_count import count_by_thop

    network = _build(spec) if seconds is not None else None
    # Counting needs shapes alone: without data, even the largest network takes no memory.
    with torch.device("meta"):
        shapes = _build(spec)
        inference = shapes.inference_form()
    size = shapes.input_spec.size
    return CostRow(
        name=name,
        size=size,
        parameters=network_cost(shapes, size).parameters,
        used=used_parameters(inference, size),
        work=count_operations(shapes, size),
        inference_work=count_operations(inference, size),
        thop=count_by_thop(shapes, size),
        activations=activation_bytes(shapes, size),
        speed=None if network is None or seconds is None else _speed(network.inference_form(), seconds, precision),
        published=PUBLISHED.get(name),
    )


def _build(spec: "Spec") -> "Backbone":
    from facelab.backbone.base import BACKBONES
    from facelab.catalogue import resolve

    registered, options = resolve(BACKBONES, spec)
    return BACKBONES.build(registered, {**DEFAULTS, **options})


def _speed(network: "Backbone", seconds: float, precision: Literal["fp32", "bf16"]) -> "Speed":
    import torch

    from facelab.cost.cost_table import Speed
    from facelab.cost.stopwatch import median_seconds
    from facelab.test_protocol.extraction.forward import Forward

    pixels = torch.randint(256, (BATCH, 3, *network.input_spec.aligned), dtype=torch.uint8)
    with Forward(network, torch.device("cpu"), precision, channels_last=True) as forward:
        latency = median_seconds(lambda: forward(pixels[:1]), seconds)
        throughput = BATCH / median_seconds(lambda: forward(pixels), seconds)
    return Speed(latency, throughput)
