"""``facelab data bench``: how fast a source is read, by the number of workers."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from facelab.cli.data import RootOption, SizeOption, SourceArgument, data_app, opened_source
from facelab.cli.options import MOST, within


@data_app.command("bench")
def bench_command(
    source: SourceArgument,
    root: RootOption = None,
    size: SizeOption = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, max=256, help="May be repeated; by default 1, 2, 4 … up to all cores.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images of a batch.", callback=within(1, MOST))] = 128,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="For each number, after a first pass.")] = 2.0,
    busy: Annotated[
        bool, typer.Option(help="Let a thread hold Python's lock meanwhile, as a training loop does.")
    ] = True,
) -> None:
    """Images a second by threads and by processes, and how many of which are enough for `data.workers`.

    Up to 8,192 images, spread over the source, are read again and again, so that they come from memory and not from the
    disk. The last column compares with what one core decodes that does nothing else.
    """
    from facelab.data.loading.reading_speed import numbers_to_try, recommended, speeds
    from facelab.threads import cores

    opened = opened_source(source, root, size)
    console = Console(markup=False, highlight=False)
    numbers = sorted(set(workers)) if workers else numbers_to_try()
    with console.status("reading"):
        found = list(speeds(opened, numbers, batch_size, seconds, busy))
    rates = {(speed.reader, speed.workers): speed for speed in found}
    table = Table(box=None, pad_edge=False)
    for heading in ("workers", "threads: images/s", "of one core", "processes: images/s", "of one core"):
        table.add_column(heading, justify="right")
    for number in numbers:
        row = [rates[reader, number] for reader in ("threads", "processes")]
        table.add_row(str(number), *(text for one in row for text in (f"{one.rate:,.0f}", f"{one.share:.2f}")))
    console.print(table)
    best = recommended(found)
    said = f"data.workers={best.workers} data.reader={best.reader} is enough: {best.rate:,.0f} images/s"
    console.print(f"{said} on {cores()} cores.", soft_wrap=True)
