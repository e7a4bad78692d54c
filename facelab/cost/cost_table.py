"""The table of `facelab cost`: one row a network, published numbers beside ours, and why they differ."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from facelab.cost.network_cost import Operations
from facelab.cost.published_costs import PublishedCost
from facelab.cost.thop_count import ThopCount
from facelab.csv_cells import as_cell
from facelab.whole_words import WholeWords, plain_table

UNLIKE = 0.01
"""Counts that differ by more than this part of ours are explained."""
NONE = "-"
NEGLIGIBLE = 5e3  # it would read 0.00M
SIZE = ("params", "published", "in use", "activations MB/image")
WORK = ("MACs", "published", "THOP")
SPEED = ("latency ms", "throughput images/s")
KINDS = {"convolution": "convolutions", "linear": "linear layers", "attention": "attention", "norm": "BatchNorm"}


@dataclass(frozen=True)
class Speed:
    """What a network does on this machine.

    Attributes:
        latency: Seconds for one image alone.
        throughput: Images a second in large batches.
    """

    latency: float
    throughput: float


@dataclass(frozen=True)
class CostRow:
    """What one network costs. None stands for what cannot be known.

    Attributes:
        name: Catalogue entry, or what the user wrote.
        size: (height, width) of its input, in pixels.
        parameters: All parameters.
        used: Parameters in inference: of the inference form, those that the embedding depends on.
        work: Operations for one image.
        inference_work: The same of the inference form.
        thop: What THOP says.
        activations: Bytes that training keeps for each image, in fp32.
        speed: None if it was not measured.
        published: What a project prints.
    """

    name: str
    size: tuple[int, int]
    parameters: int
    used: int | None
    work: Operations | None
    inference_work: Operations | None
    thop: ThopCount | None
    activations: int | None
    speed: Speed | None
    published: PublishedCost | None


def short(count: float | None) -> str:
    """Like FaceX-Zoo writes it: ``1.20M``, ``6.30G``."""
    if count is None:
        return NONE
    return f"{count / 1e9:.2f}G" if count >= 1e9 else f"{count / 1e6:.2f}M"


def cost_tables(rows: Sequence[CostRow]) -> list[WholeWords]:
    """The numbers, for a terminal of 80 columns: what networks keep in memory, and what they compute."""
    timed = any(row.speed for row in rows)
    size = plain_table("network", "input", title="size and memory")
    work = plain_table("network", title="work and speed")
    for head in SIZE:
        size.add_column(head, justify="right")
    for head in [*WORK, *SPEED * timed]:
        work.add_column(head, justify="right")
    for row in rows:
        size.add_row(row.name, "x".join(map(str, row.size)), *_size(row))
        work.add_row(row.name, *_work(row), *_speed(row) * timed)
    return [WholeWords(table, whole_cells=True) for table in (size, work)]


def _size(row: CostRow) -> list[str]:
    published = row.published.parameters if row.published else None
    activations = NONE if row.activations is None else f"{row.activations / 1e6:.1f}"
    return [short(row.parameters), short(published), short(row.used), activations]


def _work(row: CostRow) -> list[str]:
    work, published, thop = row.work, row.published, row.thop
    counts = (work.macs if work else None, published.macs if published else None, thop.total if thop else None)
    return [short(count) for count in counts]


def _speed(row: CostRow) -> list[str]:
    return [f"{row.speed.latency * 1e3:.1f}", f"{row.speed.throughput:.1f}"] if row.speed else [NONE, NONE]


def reasons(rows: Sequence[CostRow]) -> WholeWords | None:
    """Why numbers of a row differ by more than 1 %, for a terminal; None if none do."""
    table = plain_table("network", "number", "made of", title="where counts differ by more than 1 %")
    for row in rows:
        for what, why in row_reasons(row):
            table.add_row(row.name, what, why)
    return WholeWords(table) if table.row_count else None


def row_reasons(row: CostRow) -> Iterator[tuple[str, str]]:
    """Pairs of (number, what it is made of) for those that differ from ours by more than 1 %."""
    published, work, thop = row.published, row.work, row.thop
    if published and published.parameters and _unlike(published.parameters, row.parameters):
        yield f"published params {short(published.parameters)}", published.parameters_remark or "not known"
    if row.used is not None and _unlike(row.used, row.parameters):
        yield f"in use {short(row.used)}", _why_unused(row)
    if work and published and _unlike(published.macs, work.macs):
        yield f"published MACs {short(published.macs)}", _made_of(published, work)
    if work and thop and _unlike(thop.total, work.macs):
        yield f"THOP {short(thop.total)}", _thop_made_of(thop, work)


def _unlike(other: float, ours: int) -> bool:
    return abs(other - ours) > UNLIKE * ours


def _why_unused(row: CostRow) -> str:
    work, inference = row.work, row.inference_work
    if work and inference and work != inference:
        return f"branches become one convolution; {short(inference.macs)} MACs"
    return f"{short(row.parameters - (row.used or 0))} without a way to the embedding"


def _made_of(published: PublishedCost, work: Operations) -> str:
    """For example ``220.90M convolutions + 0.26M linear layers + 2 x 3.21M BatchNorm``, then what is not in it."""
    parts = [(getattr(published.counted, kind), getattr(work, kind), text) for kind, text in KINDS.items()]
    added = [f"{times} x {short(size)} {text}" for times, size, text in parts if times and size > NEGLIGIBLE]
    left_out = [f"without {short(size)} {text}" for times, size, text in parts[:3] if size and not times]
    remark = [published.macs_remark] if published.macs_remark else []
    return ", ".join([" + ".join([part.removeprefix("1 x ") for part in added] + remark), *left_out])


def _thop_made_of(thop: ThopCount, work: Operations) -> str:
    """For example ``221.16M + 12.82M BatchNorm2d``; less what THOP does not see."""
    others = sorted(thop.by_layer.items(), key=lambda item: -item[1])
    added = [
        f"+ {short(size)} {kind}"
        for kind, size in others
        if size / thop.total > UNLIKE / 10 and not thop.is_product(kind)
    ]
    unseen = work.macs - thop.products
    missing = f"- {short(unseen)} of functions, parameters and subclasses" if unseen > UNLIKE / 10 * work.macs else ""
    return " ".join([short(work.macs), *added, *([missing] if missing else [])])


def as_json(rows: Sequence[CostRow], environment: dict[str, Any]) -> str:
    """All numbers unrounded, with the machine."""
    networks = [_tree(row) for row in rows]
    return json.dumps({"environment": environment, "networks": networks}, indent=1) + "\n"


def _tree(row: CostRow) -> dict[str, Any]:
    published = row.published
    tree = asdict(CostRow(**{**row.__dict__, "published": None}))
    if published:
        tree["published"] = {"parameters": published.parameters, "macs": published.macs, "source": published.source}
    return {**tree, "macs": row.work and row.work.macs, "reasons": [list(pair) for pair in row_reasons(row)]}


def as_csv(rows: Sequence[CostRow]) -> str:
    """One line a network, numbers unrounded; empty where nothing is known."""
    lines = io.StringIO()
    records = [_record(row) for row in rows]
    writer = csv.DictWriter(lines, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if cell is None else as_cell(str(cell)) for key, cell in record.items()} for record in records
    )
    return lines.getvalue()


def _record(row: CostRow) -> dict[str, object]:
    published, speed = row.published, row.speed
    return {
        "network": row.name,
        "height": row.size[0],
        "width": row.size[1],
        "parameters": row.parameters,
        "published parameters": published and published.parameters,
        "parameters in use": row.used,
        "MACs": row.work and row.work.macs,
        "published MACs": published and published.macs,
        "published by": published and published.source,
        "inference MACs": row.inference_work and row.inference_work.macs,
        "THOP": row.thop and row.thop.total,
        "activation bytes per image": row.activations,
        "seconds for 1 image": speed and speed.latency,
        "images per second in batches of 64": speed and speed.throughput,
        "reasons": "; ".join(f"{what}: {why}" for what, why in row_reasons(row)),
    }
