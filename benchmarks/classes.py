"""What do class rows cost? One update of 100,000 classes and of 1,000,000: time and memory, ours against a dense one.

Every arm runs in a process of its own, so that its peak of memory is its own: the loss of given embeddings, gradients
of rows and embeddings, and SGD with momentum. `classes_dense.py` is the plain program. On a CPU the memory is that of
the process, beside what it had before the rows and beside rows and momentum; on a GPU that which torch has allocated.
Beside them, the three matrix products that a softmax over all classes cannot do without, in bf16.

    python benchmarks/classes.py --out classes.json
    python benchmarks/classes.py --classes 10000000 --arm "PartialFC 0.01 in files" --folder scratch    # 41 GB of disk
    python benchmarks/classes.py --device cuda --batch 512 --out classes.json
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from classes_dense import DenseRows
from gpu_rows import optimization_of_rows
from gpu_table import Figures, Result, described, table, write
from torch import Tensor

from facelab.catalogue import build
from facelab.head.base import HEADS
from facelab.head.candidates import Candidates, Product, WholeProduct, cosines
from facelab.head.class_precision import ClassPrecision
from facelab.head.classifier import CLASSIFIERS, Classifier
from facelab.head.rows.full_softmax import FullSoftmax

GB = 1e9
PRODUCTS = "three bf16 products"
FEW = 1000
SLOW = 10_000.0  # milliseconds of an update from which on one round is enough


class WholeLogits(FullSoftmax):
    """All logits at once in fp32, which autograd keeps for the backward pass."""

    def product(self, features: Tensor, candidates: Candidates) -> Product:
        """See `Classifier.product`."""
        return WholeProduct(cosines(features, candidates.rows), candidates)


@dataclass(frozen=True)
class Arm:
    """A way to hold class rows.

    Attributes:
        classifier: Registered name of ours; ``dense`` for the plain program, ``whole`` for `WholeLogits`.
        options: Of the classifier.
        precision: Format of the factors of its products.
        in_files: Whether rows and momentum lie in files.
        compiled: Whether passes over chunks are compiled.
    """

    classifier: str
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: ClassPrecision = "fp32"
    in_files: bool = False
    compiled: bool = False

    @property
    def fits_cpu(self) -> bool:
        """Whether it is for CPUs too."""
        return not self.compiled and self.precision != "tf32"


CHUNKS = {"gradient": "chunks"}
ARMS = {
    "dense 1": Arm("dense", {"sample_rate": 1.0}),
    "dense 0.1": Arm("dense", {"sample_rate": 0.1}),
    "FullSoftmax whole": Arm("whole"),
    "FullSoftmax": Arm("FullSoftmax"),
    "FullSoftmax bf16": Arm("FullSoftmax", precision="bf16"),
    "FullSoftmax tf32": Arm("FullSoftmax", precision="tf32"),
    "FullSoftmax chunks": Arm("FullSoftmax", CHUNKS),
    "FullSoftmax chunks bf16": Arm("FullSoftmax", CHUNKS, "bf16"),
    "FullSoftmax chunks tf32 compiled": Arm("FullSoftmax", CHUNKS, "tf32", compiled=True),
    "FullSoftmax chunks bf16 compiled": Arm("FullSoftmax", CHUNKS, "bf16", compiled=True),
    "PartialFC 0.1": Arm("PartialFC", {"sample_rate": 0.1}),
    "PartialFC 0.1 exact": Arm("PartialFC", {"sample_rate": 0.1, "unsampled": "exact"}),
    "PartialFC 0.1 bf16": Arm("PartialFC", {"sample_rate": 0.1}, "bf16"),
    "PartialFC 0.1 exact bf16": Arm("PartialFC", {"sample_rate": 0.1, "unsampled": "exact"}, "bf16"),
    "PartialFC 0.01": Arm("PartialFC", {"sample_rate": 0.01}),
    "PartialFC 0.01 exact": Arm("PartialFC", {"sample_rate": 0.01, "unsampled": "exact"}),
    "PartialFC 0.01 in files": Arm("PartialFC", {"sample_rate": 0.01}, in_files=True),
}


@dataclass(frozen=True)
class Sizes:
    """What all arms have in common.

    Attributes:
        classes: C.
        batch: B.
        feat_dim: D.
        device: Where.
        steps: Updates that are timed, after one that is not.
    """

    classes: int
    batch: int
    feat_dim: int
    device: torch.device
    steps: int


def embeddings_and_labels(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Random ones, (B, D) with gradient and (B,)."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(sizes.batch, sizes.feat_dim, generator=generator)
    labels = torch.randint(sizes.classes, (sizes.batch,), generator=generator)
    return embedding.to(sizes.device).requires_grad_(), labels.to(sizes.device)


def dense_update(arm: Arm, sizes: Sizes) -> Callable[[], Tensor]:
    """One update of the plain program."""
    rows = DenseRows(sizes.classes, sizes.feat_dim, **arm.options).to(sizes.device)
    optimizer = torch.optim.SGD(rows.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    embedding, labels = embeddings_and_labels(sizes)

    def update() -> Tensor:
        embedding.grad = None
        optimizer.zero_grad()
        loss: Tensor = rows(embedding, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return update


def our_update(arm: Arm, sizes: Sizes) -> Callable[[], Tensor]:
    """One update as a run makes it."""
    head = build(HEADS, "ArcFace", num_classes=sizes.classes, feat_dim=sizes.feat_dim)
    given: dict[str, Any] = {"num_classes": sizes.classes, "feat_dim": sizes.feat_dim, "head": head, "seed": 0}
    owner: Classifier
    if arm.classifier == "whole":
        owner = WholeLogits(**given)
    else:
        owner = build(CLASSIFIERS, {arm.classifier: dict(arm.options)}, **given)
    owner.class_precision, owner.class_compile = arm.precision, arm.compiled
    owner = owner.to(sizes.device)
    optim = optimization_of_rows(owner)
    embedding, labels = embeddings_and_labels(sizes)

    def update() -> Tensor:
        embedding.grad = None
        loss = owner(embedding, labels).loss
        optim.update(loss)
        owner.after_update()
        return loss.detach()

    return update


def measured_arm(arm: Arm, sizes: Sizes, folder: Path) -> Figures:
    """Median milliseconds of an update, and the peak of memory in GB.

    Args:
        arm: What is measured.
        sizes: Of what.
        folder: Where rows lie if they lie in files.
    """

    def opened(classes: int) -> Callable[[], Tensor]:
        options = {**arm.options, "folder": folder / str(classes)} if arm.in_files else arm.options
        update = dense_update if arm.classifier == "dense" else our_update
        return update(replace(arm, options=options), replace(sizes, classes=classes))

    opened(FEW)()  # loads the code that is needed, which is no memory of the rows
    memory = Memory(sizes.device)
    update = opened(sizes.classes)
    update()
    memory.forget_peak()
    seconds = statistics.median(timed(update, sizes.device) for _ in range(sizes.steps))
    peak, held = memory.peak() / GB, 4 * sizes.classes * sizes.feat_dim / GB
    beside = {} if arm.in_files else {"beside rows, momentum GB": peak - 2 * held}
    return {"ms": 1000 * seconds, "peak GB": peak, **beside}


def measured_products(sizes: Sizes) -> Figures:
    """Milliseconds of E W', D' E and D W for E (B, D), W (C, D) and D (B, C) in bf16."""
    generator = torch.Generator().manual_seed(0)

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.bfloat16).to(sizes.device)

    features, delta = random(sizes.batch, sizes.feat_dim), random(sizes.batch, sizes.classes)
    rows = random(sizes.classes, sizes.feat_dim)
    products: dict[str, Callable[[], Tensor]] = {
        "logits ms": lambda: features @ rows.T,
        "rows' gradient ms": lambda: delta.T @ features,
        "embeddings' gradient ms": lambda: delta @ rows,
    }
    figures: Figures = {}
    for name, product in products.items():
        product()
        figures[name] = 1000 * statistics.median(timed(product, sizes.device) for _ in range(sizes.steps))
    return {"ms": sum(figures.values()), **figures}


def timed(work: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Memory:
    """Bytes that this process, or its share of a GPU, has beside what it had at first.

    Args:
        device: Whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._first = self._status("VmRSS") if device.type == "cpu" else torch.cuda.memory_allocated(device)

    def forget_peak(self) -> None:
        """Measure from here on."""
        if self._device.type == "cpu":
            Path("/proc/self/clear_refs").write_text("5")
        else:
            torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """The most since then."""
        now = self._status("VmHWM") if self._device.type == "cpu" else torch.cuda.max_memory_allocated(self._device)
        return now - self._first

    @staticmethod
    def _status(key: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"this system does not say {key}; Linux is needed")


def in_a_process(name: str, sizes: Sizes, folder: Path) -> Result:
    """Measure an arm in a process of its own; one that fails, for want of memory for example, says why."""
    result = Result(f"{name}, {sizes.classes:,} classes", sizes.batch)
    words = ["--one", name, "--classes", sizes.classes, "--batch", sizes.batch, "--feat-dim", sizes.feat_dim]
    words += ["--steps", sizes.steps, "--device", sizes.device.type, "--folder", folder]
    command = [sys.executable, __file__, *map(str, words)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    result.seconds = round(time.perf_counter() - start, 1)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed, for want of memory perhaps"])[-1]
        result.status, result.note, result.details = "failed", f"ended with {done.returncode}: {last}", done.stderr
    else:
        result.status, result.note, result.figures = "measured", "", json.loads(done.stdout.splitlines()[-1])
    return result


def median_of(rounds: list[Result]) -> Result:
    """One of several results of an arm, with the medians of what was measured."""
    found = [one for one in rounds if one.status == "measured"]
    if not found:
        return rounds[0]
    figures = {name: statistics.median(one.figures[name] for one in found) for name in found[0].figures}
    return replace(found[0], figures=figures)


def can_run(arm: Arm, device: torch.device, folder: Path | None) -> bool:
    """Whether there is what the arm needs: a GPU, or a folder."""
    return (not arm.in_files or folder is not None) and (arm.fits_cpu or device.type == "cuda")


def main(
    classes: Annotated[list[int] | None, typer.Option(help="How many; repeatable. 100,000 and 1,000,000.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(ARMS)}, {PRODUCTS}; repeatable.")] = None,
    batch: Annotated[int, typer.Option(help="Embeddings in an update.")] = 256,
    feat_dim: Annotated[int, typer.Option(help="Numbers of an embedding.")] = 512,
    steps: Annotated[int, typer.Option(help="Updates that are timed, after one that is not.")] = 3,
    rounds: Annotated[int, typer.Option(help="How often all arms are measured in turn; medians. Slow arms once.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a CPU.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    folder: Annotated[Path | None, typer.Option(help="Where rows in files lie; not measured without one.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure every arm with every number of classes."""
    counts = classes or [100_000, 1_000_000]
    where = torch.device(device)
    all_sizes = [Sizes(count, batch, feat_dim, where, steps) for count in counts]
    if one is not None:
        place = folder or Path()
        figures = measured_products(all_sizes[0]) if one == PRODUCTS else measured_arm(ARMS[one], all_sizes[0], place)
        print(json.dumps(figures))
        return
    names = arm or [name for name in (*ARMS, PRODUCTS) if name == PRODUCTS or can_run(ARMS[name], where, folder)]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    facts, results = {**described(where), "threads": threads, "feat_dim": feat_dim, "steps": steps}, []
    for sizes in all_sizes:
        measured: dict[str, list[Result]] = {name: [] for name in names}
        before = list(results)
        for name in names * rounds:
            if measured[name] and measured[name][0].figures.get("ms", 0.0) > SLOW:
                continue
            measured[name].append(in_a_process(name, sizes, folder or Path()))
            print(table(facts, measured[name][-1:]).splitlines()[-1], flush=True)
            results = before + [median_of(found) for found in measured.values() if found]
            if out is not None:
                write(out, facts, results)
    print(table(facts, results))


if __name__ == "__main__":
    typer.run(main)
