"""What the benchmarks of training and inference share: their options, and one row of the table for each network."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from comparison import Comparison, compare

Program = Callable[[], object]

Backbones = Annotated[list[str] | None, typer.Option("--backbone", help="Catalogue entry.")]
Rounds = Annotated[int, typer.Option(help="Rounds of each program, beside one to warm up.")]
Seconds = Annotated[float, typer.Option(help="Start no further round of a network after this time.")]
Workers = Annotated[int, typer.Option(help="Processes of the plain loader, threads of ours.")]
Threads = Annotated[int, typer.Option(help="Threads of torch; 0 leaves its choice.")]
OurPrecision = Annotated[str, typer.Option(help="Of ours: bf16 or fp32.")]
Photos = Annotated[Path | None, typer.Option(help="Photos of 112x112 in folders; drawn faces by default.")]
Out = Annotated[Path | None, typer.Option(help="JSON file for the figures.")]


def compare_networks(
    backbones: Iterable[str],
    programs: Callable[[str], tuple[Program, Program]],
    goals: Mapping[str, float],
    *,
    images: int,
    precision: str,
    rounds: int,
    seconds: float,
) -> list[Comparison]:
    """Measure both programs of each network.

    Args:
        backbones: Catalogue entries.
        programs: Gives the plain program and ours for an entry; a call of either does one round.
        goals: The ratios that we promise.
        images: Images in a round.
        precision: Of ours, for the table.
        rounds: Measurements of each program.
        seconds: No round of a network but the first starts later than this.
    """
    rows = []
    for backbone in backbones:
        plain, ours = (partial(_rate, program, images) for program in programs(backbone))
        goal, what = goals.get(backbone), f"{backbone}, {precision}"
        rows.append(compare(what, plain, ours, rounds=rounds, goal=goal, seconds=seconds))
    return rows


def _rate(program: Program, images: int) -> float:
    start = time.perf_counter()
    program()
    return images / (time.perf_counter() - start)
