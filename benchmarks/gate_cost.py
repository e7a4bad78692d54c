"""What does a gate for each image cost? `DualLoRA` of rank r against one `LoRA` of rank 2r, layer by layer.

Both have equally many parameters. Dense layers without updates are measured too, for orientation. The layers are those
of Swin, ViT and iResNet: linear ones 384, 512 and 768 wide on 49 or 196 tokens an image, and a 3x3 convolution of 384
channels on 7x7 and 14x14 pixels; a call is one pass through ``--depth`` of a kind, one after the other: as many as in
three blocks of a transformer. What is made of the gates is made once for each pass; deeper networks pay less for it.
Dropout, which costs both sides the same, is off. Each round calls all three programs in turn, in another order every
time; the ratio is the median of the rounds' ratios, beside it that of the lowest times. Times are of the processor, so
that what else runs on the machine counts less.

    python benchmarks/gate_cost.py --threads 1 --out gate_cost.json
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from comparison import machine
from networks import Out, Rounds, Threads
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from facelab.adapter.gate_slot import gate_of_forward
from facelab.adapter.low_rank import Experts, LowRankConv2d, LowRankLayer, LowRankLinear, LowRankOptions
from facelab.engine.precision import Arithmetic, Precision

WIDTHS, TOKENS, CHANNELS, SIDES = (384, 512, 768), (49, 196), 384, (7, 14)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LIMIT = 1.10
PROGRAMS = ("plain", "single", "dual")


@dataclass(frozen=True)
class Cost:
    """Times of one kind of layer, measured in turns.

    Attributes:
        what: Layer, input, precision and direction.
        seconds: Of a call in each round, for the ``plain`` layer, a ``single`` update of rank 2r, and ``dual`` ones.
    """

    what: str
    seconds: dict[str, list[float]]

    @property
    def ratio(self) -> float:
        """Median over the rounds of dual over single."""
        return statistics.median(d / s for d, s in zip(self.seconds["dual"], self.seconds["single"], strict=True))

    @property
    def ratio_of_lowest(self) -> float:
        """The least time of dual over the least of single: other programs only ever add to a time."""
        return min(self.seconds["dual"]) / min(self.seconds["single"])

    def milliseconds(self, program: str) -> float:
        """Median of a program."""
        return 1e3 * statistics.median(self.seconds[program])


def chains(make: Callable[[], nn.Linear | nn.Conv2d], rank: int, depth: int) -> dict[str, nn.Module]:
    """Dense layers by themselves, and with both kinds of updates over the same weights."""

    def adapted(dense: nn.Linear | nn.Conv2d, experts: Experts, columns: int) -> LowRankLayer:
        options = LowRankOptions(columns, dropout=0.0, initial="trunc_normal")
        if isinstance(dense, nn.Linear):
            return LowRankLinear(dense, experts, options)
        return LowRankConv2d(dense, experts, options)

    plain = [make().requires_grad_(False) for _ in range(depth)]
    return {
        "plain": nn.Sequential(*plain),
        "single": nn.Sequential(*[adapted(dense, "single", 2 * rank) for dense in plain]),
        "dual": nn.Sequential(*[adapted(dense, "dual", rank) for dense in plain]),
    }


def cases(images: int) -> Iterator[tuple[str, Callable[[], nn.Linear | nn.Conv2d], Tensor]]:
    """Name, maker of a dense layer, and input of each case."""
    for width, tokens in product(WIDTHS, TOKENS):
        yield f"Linear {width}, {tokens} tokens", partial(nn.Linear, width, width), torch.randn(images, tokens, width)
    for side in SIDES:
        make = partial(nn.Conv2d, CHANNELS, CHANNELS, 3, padding=1)
        yield f"Conv2d {CHANNELS} 3x3, {side}x{side}", make, torch.randn(images, CHANNELS, side, side)


def call(chain: nn.Module, x: Tensor, gate: Tensor, precision: Precision, backward: bool) -> Callable[[], None]:
    """One pass through layers as inference or training does it."""
    arithmetic = Arithmetic(precision, x.device)
    x = x.requires_grad_(backward)

    def once() -> None:
        with torch.set_grad_enabled(backward), arithmetic.autocast(), gate_of_forward(gate):
            y = chain(x)
        if backward:
            y.backward(torch.ones_like(y))
            # Else every call would also pay for adding to the gradients of the one before.
            chain.zero_grad()
            x.grad = None

    return once


def measure(programs: Mapping[str, Callable[[], object]], rounds: int, least: float) -> dict[str, list[float]]:
    """Seconds of a call in each round; a round calls each program for about ``least`` seconds."""
    for program in programs.values():
        program()
    calls = max(1, round(least / min(_seconds(program, 2) for program in programs.values())))
    orders = list(permutations(programs))
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds):
        for name in orders[number % len(orders)]:
            seconds[name].append(_seconds(programs[name], calls))
    return seconds


def _seconds(program: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        program()
    return (time.process_time() - start) / calls


def report(rows: list[Cost], rank: int, out: Path | None, console: Console) -> None:
    """Print the table, and write figures and machine as JSON."""
    title = f"Two gated updates of rank {rank} against one of rank {2 * rank}, milliseconds a call"
    table = Table(title=title, caption=", ".join(f"{key} {value}" for key, value in machine().items()))
    table.add_column("layer")
    for heading in ("plain", f"LoRA {2 * rank}", f"DualLoRA {rank}", "ratio", "of the lowest", "limit"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [f"{row.milliseconds(name):.3g}" for name in PROGRAMS]
        table.add_row(row.what, *times, f"{row.ratio:.3f}", f"{row.ratio_of_lowest:.3f}", f"{LIMIT:g}")
    console.print(table)
    ratios = {"ratio": [row.ratio for row in rows], "ratio_of_lowest": [row.ratio_of_lowest for row in rows]}
    summary = {name: {"median": statistics.median(found), "largest": max(found)} for name, found in ratios.items()}
    for name, of in summary.items():
        console.print(f"{name}: median {of['median']:.3f}, largest {of['largest']:.3f} of {len(rows)}", highlight=False)
    if out is not None:
        figures = [
            {"what": row.what, "ratio": row.ratio, "ratio_of_lowest": row.ratio_of_lowest, "seconds": row.seconds}
            for row in rows
        ]
        out.write_text(
            json.dumps({"title": title, "machine": machine(), "summary": summary, "rows": figures}, indent=1) + "\n"
        )
        console.print(f"figures: {out}", highlight=False)


def main(
    rank: Annotated[int, typer.Option(help="Of each expert.")] = 8,
    depth: Annotated[int, typer.Option(help="Layers in a call; they share what is made of the gates.")] = 12,
    batch_size: Annotated[list[int] | None, typer.Option(help="Images in a call; 8 and 32 by default.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; both by default.")] = None,
    least: Annotated[float, typer.Option(help="Seconds of one measurement.")] = 0.03,
    rounds: Rounds = 18,
    threads: Threads = 0,
    out: Out = None,
) -> None:
    """Measure what the gate costs."""
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(0)
    precisions = [cast(Precision, name) for name in precision or PRECISIONS]
    rows = []
    for images in batch_size or [8, 32]:
        gate = torch.rand(images)
        for (name, make, x), numbers, backward in product(cases(images), precisions, (False, True)):
            programs = {
                program: call(chain, x, gate, numbers, backward) for program, chain in chains(make, rank, depth).items()
            }
            what = f"{name} x {images}, {numbers}, {'forward and backward' if backward else 'forward'}"
            rows.append(Cost(what, measure(programs, rounds, least)))
    report(rows, rank, out, Console(width=140))


if __name__ == "__main__":
    typer.run(main)
