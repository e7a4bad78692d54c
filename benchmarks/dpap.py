"""What does TransFace's augmentation cost? DPAP against a loop over patches, and a training step with and without it.

The loop is written as published programs are: for each image that is changed, and for each of its patches, NumPy's
FFT of that patch and of its donor, back and forth, with the spectra shifted and shifted back, on pixels that came
from the device. Both sides change the same images by the same random numbers, and the results are compared first.
Steps are forward and backward pass of a batch with 1,000 class rows, without DPAP, with either ranking, and as
published: a second forward pass of the whole batch in training mode, and the loop. Each round calls all programs in
turn, in another order every time, for a tenth of a second or once; ratios are medians of the rounds' ratios. Times
are of the processor, so that what else runs on the machine counts less.

    python benchmarks/dpap.py --threads 1 --out dpap.json
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from gate_cost import measure
from machine import machine
from networks import Out, Rounds, Threads
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from facelab.backbone.base import BACKBONES, PatchGrid
from facelab.catalogue import build
from facelab.data.base import Batch
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.training_mode.base import Supplies
from facelab.training_mode.transface import TransFace
from facelab.training_mode.transface.dpap import Donors, perturb

CLASSES, PATCHES, PROBABILITY, LEAST = 1000, 7, 0.2, 0.1
SMALL = {"drop_path_rate": 0.05, "mask_ratio": 0.0, "patch_gate": True}
PROGRAMS = {
    "without": {"probability": 0.0, "entropy": None},
    "stale": {"ranking": "stale", "entropy": None},
    "fresh": {"ranking": "fresh", "entropy": None},
    "published": {"ranking": "fresh", "entropy": None},
}


def loop_over_patches(image: NDArray[np.uint8], side: int, place: NDArray[np.int64], donors: Donors) -> None:
    """Perturb pixels (B, H, W, 3) in place, patch by patch; donors are as they were before."""
    columns = image.shape[2] // side
    before = image.copy()

    def cut(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        row, column = side * (number // columns), side * (number % columns)
        return pixels[row : row + side, column : column + side]

    def spectrum(pixels: NDArray[np.uint8]) -> NDArray[np.complex128]:
        return np.fft.fft2(pixels.astype(np.float64), axes=(0, 1))

    def shifted(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.fft.fftshift(values, axes=(0, 1))

    for m, row in enumerate(donors.rows):
        for k, number in enumerate(place[m]):
            own = spectrum(cut(before[row], number))
            donor = spectrum(cut(before[donors.image[m, k]], donors.patch[m, k]))
            share = donors.share[m, k]
            amplitude = (1 - share) * shifted(np.abs(own)) + share * shifted(np.abs(donor))
            mixed = np.fft.ifftshift(amplitude, axes=(0, 1)) * np.exp(1j * np.angle(own))
            pixels = np.real(np.fft.ifft2(mixed, axes=(0, 1)))
            cut(image[row], number)[:] = np.clip(pixels, 0, 255).astype(np.uint8)


def published(image: Tensor, grid: PatchGrid, place: Tensor, donors: Donors) -> Tensor:
    """The loop on pixels of the device, and back."""
    pixels = image.permute(0, 2, 3, 1).cpu().numpy().copy()
    loop_over_patches(pixels, grid.side, place.cpu().numpy(), donors)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(image.device)


def random_batch(size: int, batch_size: int) -> Batch:
    """Random images, channels_last."""
    coarse = torch.rand(batch_size, 3, 9, 9)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").mul(255)
    # With the grain of a photo: a patch without amplitudes has no phases but those of rounding.
    image = smooth + 4.0 * torch.randn_like(smooth)
    pixels = image.clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    draws = draws_of_batch(0, 0, 0, np.arange(batch_size))
    return Batch(pixels, torch.randint(CLASSES, (batch_size,)), torch.arange(batch_size), draws=draws)


def augmentations(batch: Batch, grid: PatchGrid) -> dict[str, Callable[[], Tensor]]:
    """DPAP of one batch, both ways, from the random numbers to the changed images."""
    gate = torch.rand(batch.size, grid.count)

    def once(program: Callable[[Tensor, PatchGrid, Tensor, Donors], Tensor]) -> Tensor:
        assert batch.draws is not None
        donors = Donors.drawn(Draws(batch.draws, "dpap"), batch.size, grid, PATCHES, PROBABILITY, 1.0)
        place = gate[torch.from_numpy(donors.rows)].topk(PATCHES, dim=1).indices
        return program(batch.image, grid, place, donors)

    apart = (once(perturb).int() - once(published).int()).abs()
    if int(apart.max()) > 1 or float((apart > 0).float().mean()) > 1e-4:
        raise AssertionError("the two programs do not give the same images")
    return {"loop": partial(once, published), "batched": partial(once, perturb)}


class Published(TransFace):
    """Ranks by a forward pass of the whole batch in training mode, and changes patches by the loop."""

    @torch.no_grad()
    def _perturbed(self, batch: Batch) -> Batch:
        assert batch.draws is not None
        donors = Donors.drawn(Draws(batch.draws, "dpap"), batch.size, self.grid, self.patches, self.probability, 1.0)
        gate = self.network.features(*self.inputs(batch)).patch_gate
        assert gate is not None
        place = gate[torch.from_numpy(donors.rows)].topk(self.patches, dim=1).indices
        return replace(batch, image=published(batch.image, self.grid, place, donors))


def steps(batch: Batch, options: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """Forward and backward pass of each program."""

    def step_of(name: str) -> Callable[[], None]:
        network = build(BACKBONES, {"ViT": options}).to(memory_format=torch.channels_last)
        kind = Published if name == "published" else TransFace
        mode = kind(Supplies(network, CLASSES), **PROGRAMS[name])  # type: ignore[arg-type]

        def once() -> None:
            mode.step(batch).loss.backward()
            for module in (mode.network, mode.classifier):
                module.zero_grad()

        return once

    return {name: step_of(name) for name in PROGRAMS}


def table_of(title: str, seconds: dict[str, list[float]], base: str) -> tuple[Table, list[dict[str, Any]]]:
    """Medians, and their ratios to ``base`` by rounds."""
    table, rows = Table("program", "ms", f"times '{base}'", title=title), []
    for name, found in seconds.items():
        ratio = statistics.median(one / other for one, other in zip(found, seconds[base], strict=True))
        rows.append({"program": name, "ratio": ratio, "seconds": found})
        table.add_row(name, f"{1e3 * statistics.median(found):.1f}", f"{ratio:.3f}")
    return table, rows


def main(
    batch_size: Annotated[int, typer.Option(help="Images.")] = 128,
    dim: Annotated[int, typer.Option(help="Width of the network's tokens; TransFace-S has 512.")] = 128,
    depth: Annotated[int, typer.Option(help="Its blocks; TransFace-S has 12.")] = 4,
    rounds: Rounds = 12,
    threads: Threads = 0,
    out: Out = None,
) -> None:
    """Measure what DPAP costs."""
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(0)
    options = {"dim": dim, "depth": depth, "heads": 4, **SMALL}
    grid = build(BACKBONES, {"ViT": options}).gated_patches
    assert grid is not None
    batch = random_batch(112, batch_size)
    console, figures = Console(width=140), {}
    for title, programs, base in (
        (f"DPAP of {batch_size} images", augmentations(batch, grid), "batched"),
        (f"A step of {batch_size} images, ViT {dim} wide, {depth} blocks", steps(batch, options), "without"),
    ):
        table, figures[title] = table_of(title, measure(programs, rounds, LEAST), base)
        console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in machine().items()), highlight=False)
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), "tables": figures}, indent=1) + "\n")
        console.print(f"figures: {out}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
