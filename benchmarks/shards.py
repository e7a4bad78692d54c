"""How fast are 112x112 JPEG images read from tar shards, here and from a web server that is some way off?

A server of this machine, a process of its own, answers each request after a delay, as one does that is so far away.
With `Shuffle` each image is a request; with `ShardShuffle` each run of neighbours is.

    python benchmarks/shards.py --delay 20 --out shards.json
"""

import json
import os
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, Queue
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from machine import machine
from patterns import SIZE, write_images
from rich.console import Console
from rich.table import Table

from facelab.data.base import SAMPLERS, Source
from facelab.data.formats.conversion import encoder, stems
from facelab.data.loading.loader import Loader
from facelab.data.shards.tar_writer import write_webdataset
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.webdataset import WebDataset


def serve(folder: Path, delay: float, ports: "Queue[int]") -> None:
    """Give parts of files for ever, each after a delay in seconds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            path = folder / self.path.strip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            time.sleep(delay)
            with path.open("rb") as file:
                file.seek(first)
                part = file.read(last + 1 - first)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{path.stat().st_size}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()


def rate(source: Source, sampler: str, workers: int, epoch: int) -> float:
    """Images a second over an epoch."""
    order = SAMPLERS.build(sampler, {}, labels=source.labels, seed=0, runs=source.runs)
    loader = Loader(source, order, batch_size=64, workers=workers)
    start = time.perf_counter()
    count = sum(batch.size for batch in loader.batches(epoch))
    return count / (time.perf_counter() - start)


def main(
    images: Annotated[int, typer.Option(help="JPEG images.")] = 4096,
    per_shard: Annotated[int, typer.Option(help="Images of a shard.")] = 1024,
    delay: Annotated[float, typer.Option(help="Milliseconds before each answer of the server.")] = 20.0,
    workers: Annotated[int, typer.Option(help="Threads that read.")] = 8,
    rounds: Annotated[int, typer.Option(help="Epochs measured of each, in turns.")] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare reading speed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["FACELAB_CACHE"] = str(root / "cache")
        (root / "faces").mkdir()
        folder = ImageFolder(write_images(root / "faces", images)[0].parents[1])
        write_webdataset(root / "shards", folder, encoder(folder), stems(folder), per_shard)
        ports: Queue[int] = Queue()
        server = Process(target=serve, args=(root / "shards", delay / 1000, ports), daemon=True)
        server.start()
        count = -(-images // per_shard) - 1
        address = f"http://127.0.0.1:{ports.get()}/shard-{{00000..{count:05d}}}.tar"
        arms: dict[str, tuple[str, str]] = {
            "files in folders, Shuffle": ("", "Shuffle"),
            "shards here, Shuffle": (str(root / "shards"), "Shuffle"),
            "shards here, ShardShuffle": (str(root / "shards"), "ShardShuffle"),
            f"server {delay:g} ms away, Shuffle": (address, "Shuffle"),
            f"server {delay:g} ms away, ShardShuffle": (address, "ShardShuffle"),
        }
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for epoch in range(rounds):
            for arm, (shards, sampler) in arms.items():
                # Opened anew, so that nothing of an earlier epoch is left: each is a first epoch, in which JPEGs are
                # searched for holes too. In a full shuffle of a large set, no run is wanted twice in a short time.
                cache = 64 if sampler == "ShardShuffle" else 1
                source = WebDataset(shards, cache_mb=cache) if shards else ImageFolder(root / "faces")
                found[arm].append(rate(source, sampler, workers, epoch))
        server.terminate()
    table = Table("", "images/s", "from", "to", title=f"{images} JPEG images of {SIZE}x{SIZE}, {workers} threads")
    for arm, rates in found.items():
        table.add_row(arm, *(f"{value:,.0f}" for value in (median(rates), min(rates), max(rates))))
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps({"rates": found, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
