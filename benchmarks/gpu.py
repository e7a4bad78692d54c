"""How fast is facelab on this GPU? One run of about ten minutes: training, tests, classifier, extraction, loader.

Needs the checkout, torch with CUDA, NumPy, OpenCV, PyYAML, pydantic and safetensors; no network, no data, no weights.
Images are drawn or random. The most important rows come first; a row that fails says why and the rest goes on. The
file of ``--out`` is whole after every row, so that a run which is cut off has lost nothing.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --only loader tests    # rows whose names have one of these words
    python benchmarks/gpu.py --device cpu --tiny    # does it run at all? seconds, and the figures mean nothing
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's facelab, whatever is installed

import torch
from gpu_bench import Bench
from gpu_rows import (
    DrawnSources,
    RowSkipped,
    classifier,
    cuda_tests,
    extraction,
    loading,
    norm,
    plain_training,
    training,
    training_from_files,
)
from gpu_table import Figures, Result, described, summary, table, write
from machine import cores

from facelab.data.loading.reading_speed import READERS
from facelab.engine.compilation import Compile
from facelab.engine.precision import Precision
from facelab.head.class_precision import ClassPrecision

MS1MV2, MILLION = 93_431, 1_000_000  # people of a usual training set, and of the largest ones by order of magnitude
IMAGES = 8_192  # of the loader, in an epoch without end


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: The work.
        measure: Does it and gives the figures, and perhaps words.
        batch: Images in a step.
        precision: Format of the forward pass.
        seconds: What it takes on a slow GPU; it is not begun where less time is left.
        needs_cuda: Whether there is nothing to measure on a CPU.
    """

    what: str
    measure: Callable[[], Figures]
    batch: int | None = None
    precision: str = ""
    seconds: float = 20.0
    needs_cuda: bool = False


def training_rows(bench: Bench) -> list[Row]:
    """Training steps, those of the aims first, and what a plain program makes of the same work right behind them."""
    aims: list[tuple[str, int, Precision]] = [
        ("r50", 256, "fp16"),
        ("r100", 256, "fp16"),
        ("vit_s", 256, "fp16"),
        ("MobileFaceNet", 512, "fp16"),
        ("PETALSwin", 128, "bf16"),
    ]
    others: list[tuple[str, int, Precision]] = [
        ("r50", 256, "bf16"),
        ("vit_s", 256, "bf16"),
        ("r50", 128, "fp16"),
        ("r100", 256, "bf16"),
        ("MobileFaceNet", 512, "bf16"),
        ("PETALSwin", 64, "bf16"),
        ("r50", 256, "fp32"),
    ]
    if bench.tiny:
        others = []
    rows = [row for one in aims for row in (_training(bench, *one), *_plain(bench, *one))]
    return rows + [_training(bench, *one) for one in others]


def file_rows(bench: Bench, sources: DrawnSources) -> list[Row]:
    """Training from JPEG files, as a share of the speed from images on the device."""
    classes, source = bench.classes(MS1MV2), lambda: sources.jpeg
    return [
        Row(
            f"training {entry} from JPEG files, {classes:,} classes",
            partial(training_from_files, bench, source, entry, bench.batch_size(batch), "fp16", classes),
            bench.batch_size(batch),
            "fp16",
            60.0,
        )
        for entry, batch in (("r50", 256), ("MobileFaceNet", 512))
    ]


def graph_rows(bench: Bench) -> list[Row]:
    """The same as CUDA graphs."""
    wanted: list[tuple[str, int, Precision, Compile]] = [
        ("MobileFaceNet", 512, "fp16", "off"),
        ("r50", 128, "fp16", "off"),
        ("r50", 256, "fp16", "off"),
        ("vit_s", 256, "bf16", "off"),
        ("PETALSwin", 128, "bf16", "off"),
    ]
    return [_training(bench, *one, cuda_graph=True) for one in wanted]


def compiled_rows(bench: Bench) -> list[Row]:
    """The same by `torch.compile`, whose first step takes long."""
    wanted: list[tuple[str, int, Precision]] = [
        ("r50", 256, "fp16"),
        ("MobileFaceNet", 512, "fp16"),
        ("vit_s", 256, "bf16"),
        ("PETALSwin", 128, "bf16"),
        ("r50", 256, "bf16"),
    ]
    return [_training(bench, *one, "default", cuda_graph=one[0] == "MobileFaceNet") for one in wanted]


def searched_rows(bench: Bench) -> list[Row]:
    """The same by `torch.compile`, which tries several kernels: minutes before the first step."""
    return [_training(bench, entry, 256, "bf16", "max") for entry in ("r50", "vit_s")]


def _training(
    bench: Bench,
    entry: str,
    batch: int,
    precision: Precision,
    compile: Compile = "off",
    *,
    fused_norm: bool = False,
    cuda_graph: bool = False,
) -> Row:
    """A step of facelab's own; settings beside the precision are for a GPU."""
    classes, size = bench.classes(MS1MV2), bench.batch_size(batch)
    settings = {"fused_norm": fused_norm, f"compile: {compile}": compile != "off", "cuda_graph": cuda_graph}
    said = [name for name, wanted in settings.items() if wanted]
    return Row(
        ", ".join([f"training {entry}", f"{classes:,} classes", *said]),
        partial(training, bench, entry, size, precision, classes, compile, fused_norm, cuda_graph),
        size,
        precision,
        {"off": 20.0, "default": 90.0, "max": 180.0}[compile],
        needs_cuda=bool(said),
    )


def _plain(bench: Bench, entry: str, batch: int, precision: Precision) -> list[Row]:
    """The step of a program that is written as InsightFace's, which is in fp16."""
    if precision != "fp16":
        return []
    classes, size = bench.classes(MS1MV2), bench.batch_size(batch)
    work = partial(plain_training, bench, entry, size, classes)
    return [Row(f"training {entry}, {classes:,} classes, written plainly", work, size, precision)]


def fused_rows(bench: Bench) -> list[Row]:
    """`training.fused_norm` in steps of whole networks."""
    wanted: list[tuple[str, int, Precision, bool]] = [
        ("r50", 256, "fp16", False),
        ("r50", 256, "fp16", True),
        ("r50", 256, "bf16", False),
        ("MobileFaceNet", 512, "fp16", True),
        ("r100", 256, "fp16", True),
        ("MobileFaceNet", 512, "bf16", False),
    ]
    return [
        _training(bench, entry, batch, precision, fused_norm=True, cuda_graph=graph)
        for entry, batch, precision, graph in wanted
    ]


def norm_rows(bench: Bench) -> list[Row]:
    """`training.fused_norm` alone, on three maps of iResNet-50."""
    half: tuple[Precision, ...] = ("bf16", "fp16")
    return [
        Row(
            f"norm, PReLU, residual, {channels} x {side} x {side}, {'ours' if fused else 'PyTorch'}",
            partial(norm, bench, bench.batch_size(256), channels, side, precision, fused),
            bench.batch_size(256),
            precision,
            8.0,
            needs_cuda=True,
        )
        for channels, side in ((64, 112), (128, 28), (512, 7))
        for precision in half
        for fused in (False, True)
    ]


def classifier_rows(bench: Bench) -> list[Row]:
    """The class rows alone."""
    size = bench.batch_size(512)
    ways: list[tuple[str, ClassPrecision]] = [("FullSoftmax", "fp32"), ("FullSoftmax", "bf16"), ("PartialFC", "fp32")]
    return [
        Row(
            f"classifier {entry}, {classes:,} classes",
            partial(classifier, bench, size, classes, entry, precision),
            size,
            precision,
            seconds,
        )
        for classes, seconds in ((bench.classes(MS1MV2), 15.0), (bench.classes(MILLION), 60.0))
        for entry, precision in ways
    ]


def extraction_rows(bench: Bench) -> list[Row]:
    """Embedding."""
    return [
        Row(f"extraction {entry}", partial(extraction, bench, entry, size, "bf16"), size, "bf16", 15.0)
        for entry, batch in (("r50", 256), ("vit_s", 256), ("MobileFaceNet", 512))
        for size in [bench.batch_size(batch)]
    ]


def loader_rows(bench: Bench, sources: DrawnSources) -> list[Row]:
    """The loader by its number of processes and of threads, up to all processors."""
    counts = sorted({count for count in (1, 2, 4, 8) if count < cores()} | {cores()})
    size = bench.batch_size(256)
    if bench.tiny:
        counts = counts[:1]
    return [
        Row(
            f"loader {name}, {reader}: {count}",
            partial(loading, bench, source, size, count, reader),
            size,
            seconds=10.0,
        )
        for name, source in (("JPEG folder", lambda: sources.jpeg), ("packed", lambda: sources.packed))
        for reader in READERS[::-1]
        for count in counts
    ]


def all_rows(bench: Bench, sources: DrawnSources) -> list[Row]:
    """Everything, most important first."""
    return [
        *training_rows(bench),
        *fused_rows(bench),
        *graph_rows(bench),
        *file_rows(bench, sources),
        Row("tests that need CUDA", cuda_tests, seconds=120.0, needs_cuda=True),
        *compiled_rows(bench),
        *loader_rows(bench, sources),
        *classifier_rows(bench),
        *extraction_rows(bench),
        *norm_rows(bench),
        *searched_rows(bench),
    ]


def measured(row: Row, device: torch.device, left: float) -> Result:
    """Measure one row, whatever becomes of it.

    Args:
        row: What to measure.
        device: Where.
        left: Seconds that remain for all rows.
    """
    result = Result(row.what, row.batch, row.precision)
    if row.needs_cuda and device.type != "cuda":
        result.note = "not measured: needs a CUDA device"
    elif row.seconds > left:
        result.note = f"not measured: takes up to {row.seconds:g} s, and {max(left, 0.0):.0f} s are left"
    else:
        _measure(row, result)
    return result


def _measure(row: Row, result: Result) -> None:
    start = time.perf_counter()
    try:
        result.figures = row.measure()
        result.status, result.note = "measured", ""
    except RowSkipped as reason:
        result.note = str(reason)
    except Exception as error:  # noqa: BLE001  (whatever it is: the other rows need the GPU that is there now)
        result.status, result.note = "failed", f"{type(error).__name__}: {error}"
        result.details = traceback.format_exc()
    result.seconds = round(time.perf_counter() - start, 1)


def run(rows: Sequence[Row], device: torch.device, minutes: float, out: Path | None) -> list[Result]:
    """Measure the rows in turn; figures are printed and written as they come, the table at the end.

    Args:
        rows: Most important first.
        device: Where.
        minutes: No row begins that would probably end later.
        out: JSON file for the figures, or None.
    """
    facts, end = described(device), time.perf_counter() + 60 * minutes
    results = [Result(row.what, row.batch, row.precision) for row in rows]
    try:
        for number, row in enumerate(rows):
            print(f"[{number + 1}/{len(rows)}] {row.what} {row.precision}".rstrip(), flush=True)
            results[number] = measured(row, device, end - time.perf_counter())
            print(f"      {summary(results[number])}", flush=True)
            if out is not None:
                write(out, facts, results)
    finally:
        print(table(facts, results), flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure this machine."""
    parser = argparse.ArgumentParser(description="Measure facelab on this GPU.")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--minutes", type=float, default=12.0, help="no row begins that would end later (12)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows whose names have one of these")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a trial of the script with tiny networks")
    given = parser.parse_args(arguments)
    if given.device == "cpu" and not given.tiny:
        parser.error("on the CPU there is only a trial of the script: add --tiny")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            f"torch {torch.__version__} finds no CUDA device; without one, --device cpu --tiny tries the script"
        )
    if not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes is {given.minutes}, but must be above 0")
    if given.out is not None and not given.out.resolve().parent.is_dir():
        parser.error(f"--out is '{given.out}', but there is no folder '{given.out.resolve().parent}'")
    bench = Bench(torch.device(given.device), given.tiny)
    with DrawnSources(8 if given.tiny else IMAGES) as sources:
        rows = [row for row in all_rows(bench, sources) if any(word in row.what for word in given.only)]
        if not rows:
            parser.error(f"--only is {' '.join(given.only)}, but no row has such a name")
        run(rows, bench.device, given.minutes, given.out)


if __name__ == "__main__":
    main()
