"""What `gpu.py` measures. Each function builds its work, measures it and gives the figures."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import torch
from gpu_bench import Bench, Peak, median_seconds
from gpu_table import ROOT, Figures
from machine import cores
from patterns import write_images
from plain_step import PlainStep
from torch import nn

from facelab.backbone.base import Backbone
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.fused_norm import NormBlock, fuse_norms
from facelab.catalogue import build
from facelab.data.base import Batch, Source
from facelab.data.loading.loader import Loader
from facelab.data.loading.reading_speed import Endless
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.packed import write_packed
from facelab.data.sources.resized import Resized
from facelab.data.transforms.augment import Augment
from facelab.engine.compilation import Compile
from facelab.engine.cuda_graph import StepGraph
from facelab.engine.kernels import kernels
from facelab.engine.loop import plain_step
from facelab.engine.optimization import Optimization, OptimizerConfig, Precision, parameter_groups
from facelab.engine.precision import DTYPES
from facelab.engine.replica import replicate
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import DivergenceError
from facelab.head.base import HEADS
from facelab.head.class_precision import ClassPrecision
from facelab.head.classifier import CLASSIFIERS, Classifier
from facelab.run.assembly import open_optimization, update_rule
from facelab.run.data_settings import DataSettings
from facelab.run.device_feed import DeviceFeed
from facelab.run.settings import make_config
from facelab.test_protocol.extraction.forward import Forward
from facelab.threads import Reader
from facelab.training_mode.base import MODES, Supplies

FEAT_DIM = 512
OPTIMIZER = {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
UPDATES = 10**6  # more than any row makes
MARK, TEST_SECONDS = "pytest.mark.cuda", 240.0


class RowSkipped(Exception):
    """A row cannot be measured here; the message says why."""


def cuda_tests() -> Figures:
    """Numbers of tests that passed and were skipped.

    Only the files that have such tests are read: others may import what is not installed.

    Raises:
        RowSkipped: If pytest is missing.
        RuntimeError: If a test does not pass, with all that pytest said.
        TimeoutExpired: If they take too long.
    """
    if importlib.util.find_spec("pytest") is None:
        raise RowSkipped("not measured: pytest is not installed")
    files = sorted(set(_files_of_cuda_tests()))
    if not files:
        raise RowSkipped("not measured: the checkout has no tests")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]
    # Before what is there: libraries may come from that path, too.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS)
    return counts(f"{done.stderr}\n{done.stdout}", done.returncode)


def _files_of_cuda_tests() -> Iterator[str]:
    """Those that mark tests, and those below a conftest file that marks what its fixtures give."""
    for path in (ROOT / "tests").rglob("*.py"):
        if MARK in path.read_text("utf-8"):
            found = path.parent.rglob("test_*.py") if path.name == "conftest.py" else [path]
            yield from map(str, found)


def counts(said: str, code: int) -> Figures:
    """What pytest counted.

    Raises:
        RuntimeError: If it did not end with success.
    """
    summary = said.strip().rpartition("\n")[2].strip("= ")
    if code:
        raise RuntimeError(f"pytest ended with {code}: {summary}\n{said}")
    return {name: float(found[1]) for name in ("passed", "skipped") if (found := re.search(rf"(\d+) {name}", summary))}


def _rate(seconds: float, images: int) -> Figures:
    return {"images/s": images / seconds, "ms": seconds * 1000}


def _classifier(bench: Bench, entry: str, classes: int, feat_dim: int) -> Classifier:
    head = build(HEADS, "ArcFace", num_classes=classes, feat_dim=feat_dim)
    rows = build(CLASSIFIERS, entry, head=head, num_classes=classes, feat_dim=feat_dim, seed=0)
    return rows.to(bench.device)


def training(
    bench: Bench,
    entry: str,
    batch_size: int,
    precision: Precision,
    classes: int,
    compile: Compile = "off",
    fused_norm: bool = False,
    cuda_graph: bool = False,
) -> Figures:
    """Updates of a network and its class rows: normalisation, forward, backward, SGD. No loader, no augmentation."""
    peak = Peak(bench.device)
    network = bench.backbone(entry)
    batch = _batch_on_device(bench, network, batch_size, classes)
    update, optim = _updates(bench, network, precision, classes, compile, fused_norm, cuda_graph)
    with kernels(tf32=True, cudnn_benchmark=True):  # as a run has it by default
        seconds = median_seconds(lambda: update(batch), bench)
    return _rate(seconds, batch_size) | _diverged(optim) | peak.figures()


def training_from_files(
    bench: Bench, source: Callable[[], Source], entry: str, batch_size: int, precision: Precision, classes: int
) -> Figures:
    """The same updates from files, through loader and augmentation as a run has them, beside those from the device.

    Processes read, as they do unless told otherwise in a data set of such images that is worth training on.
    """
    network = bench.backbone(entry)
    on_device = _batch_on_device(bench, network, batch_size, classes)
    update, optim = _updates(bench, network, precision, classes)
    images, settings = Resized(source(), *network.input_spec.size), DataSettings(source="ImageFolder")
    loader = Loader(
        images,
        Endless(len(images)),
        batch_size=batch_size,
        workers=settings.workers,
        reader="processes",
        prefetch=settings.prefetch,
        pin_memory=bench.device.type == "cuda",
    )
    feed = DeviceFeed(loader, Augment(settings.augment, seed=0), accumulate=1, device=bench.device)
    with kernels(tf32=True, cudnn_benchmark=True), closing(loader), closing(feed.batches(0, 0)) as batches:
        ideal = median_seconds(lambda: update(on_device), bench)
        seconds = _seconds_of_a_batch(batches, len(images) // batch_size, update, bench)
    return _rate(seconds, batch_size) | {"of images on the device": ideal / seconds} | _diverged(optim)


def _seconds_of_a_batch(batches: Iterator[Batch], once: int, work: Callable[[Batch], object], bench: Bench) -> float:
    """Seconds of a batch and the work on it, by passes of ``once`` batches; the first one comes from the disk.

    Not batch by batch: where readers are what is waited for, some come together, and the next ones late.
    """

    def one_pass() -> None:
        for batch in islice(batches, once):
            work(batch)

    return median_seconds(one_pass, bench, warm_up=1, blocks=3) / once


def _batch_on_device(bench: Bench, network: Backbone, batch_size: int, classes: int) -> Batch:
    """Random images and labels, where no loader is to be waited for."""
    rows = torch.arange(batch_size, device=bench.device)
    labels = torch.randint(0, classes, (batch_size,), device=bench.device)
    return Batch(bench.pixels(network, batch_size), labels, rows)


def _updates(
    bench: Bench,
    network: Backbone,
    precision: Precision,
    classes: int,
    compile: Compile = "off",
    fused_norm: bool = False,
    cuda_graph: bool = False,
) -> tuple[Callable[[Batch], None], Optimization]:
    """What makes an update of a batch, and its optimisers."""
    if fused_norm:
        fuse_norms(network, bench.device)
    mode = build(
        MODES,
        "conventional",
        supplies=Supplies(network, classes, replicate=partial(replicate, compile=compile)),
        gate=None,
    )
    tree = {"data": {"source": "ImageFolder"}, "optimizer": OPTIMIZER, "training": {"precision": precision}}
    optim = open_optimization(make_config(tree, "the benchmark"), mode, UPDATES, bench.device)
    owners = {"mode": mode, **mode.networks(), **mode.row_owners()}
    step = StepGraph(mode, optim, owners) if cuda_graph else plain_step(mode, optim)

    def update(batch: Batch) -> None:
        step(batch)
        mode.after_update()

    return update, optim


def plain_training(bench: Bench, entry: str, batch_size: int, classes: int) -> Figures:
    """The same work as `training` in fp16, by a program that is written as InsightFace's."""
    peak = Peak(bench.device)
    network = bench.backbone(entry)
    labels = torch.randint(0, classes, (batch_size,), device=bench.device)
    step = PlainStep(network, bench.pixels(network, batch_size), labels, classes)
    with kernels(tf32=True, cudnn_benchmark=True):
        return _rate(median_seconds(step, bench), batch_size) | peak.figures()


def norm(bench: Bench, batch_size: int, channels: int, side: int, precision: Precision, fused_norm: bool) -> Figures:
    """BatchNorm, PReLU and residual of one map, forward and backward: by our kernels, or by PyTorch's and cuDNN's."""
    peak = Peak(bench.device)
    block, layer, act = NormBlock(), nn.BatchNorm2d(channels).to(bench.device), PReLU(channels).to(bench.device)
    block.fused_norm = fused_norm
    like = {"dtype": DTYPES[precision], "device": bench.device}
    maps = [torch.randn(batch_size, channels, side, side, **like) for _ in range(3)]  # type: ignore[arg-type]
    x, residual, gradient = (one.contiguous(memory_format=torch.channels_last) for one in maps)
    x.requires_grad_()

    def step() -> None:
        x.grad = None
        block.normed(x, layer, act, residual).backward(gradient)

    return {"ms": median_seconds(step, bench) * 1000} | peak.figures()


def _diverged(optim: Optimization) -> Figures:
    """A mark if numbers were not finite; the steps take as long, but somebody should know."""
    with suppress(DivergenceError):
        optim.check()
        return {}
    return {"not finite": 1.0}


def optimization_of_rows(rows: Classifier) -> Optimization:
    """Optimisers of class rows alone, as a run makes them: SGD, or what their owner brings."""
    config = OptimizerConfig.model_validate(OPTIMIZER)
    own = rows.optimizer(update_rule(config))
    moved = [] if own is None else [one for group in own.param_groups for one in group["params"]]
    return Optimization(
        parameter_groups([rows], config, sharded=True, known=moved),
        config,
        ScheduleConfig(),
        total_updates=UPDATES,
        updates_per_epoch=UPDATES,
        device=next(iter(rows.row_tensors().values())).device,
        others=[] if own is None else [own],
    )


def classifier(
    bench: Bench, batch_size: int, classes: int, entry: str = "FullSoftmax", precision: ClassPrecision = "fp32"
) -> Figures:
    """Updates of the class rows alone: loss of given embeddings, gradients of both, SGD."""
    peak = Peak(bench.device)
    feat_dim = 8 if bench.tiny else FEAT_DIM
    rows = _classifier(bench, entry, classes, feat_dim)
    rows.class_precision = precision
    optim = optimization_of_rows(rows)
    embedding = torch.randn(batch_size, feat_dim, device=bench.device, requires_grad=True)
    labels = torch.randint(0, classes, (batch_size,), device=bench.device)

    def step() -> None:
        embedding.grad = None
        optim.update(rows(embedding, labels).loss)
        rows.after_update()

    seconds = median_seconds(step, bench)
    # Twice: the rows and their momentum.
    held = 2 * sum(tensor.numel() * tensor.element_size() for tensor in rows.row_tensors().values())
    return {"ms": seconds * 1000} | _diverged(optim) | peak.figures(held)


def extraction(bench: Bench, entry: str, batch_size: int, precision: Precision) -> Figures:
    """Embeddings by the extractor's forward pass; pixels and embeddings stay on the device."""
    peak = Peak(bench.device)
    network = bench.backbone(entry)
    pixels = bench.pixels(network, batch_size)
    with Forward(network, bench.device, precision, channels_last=True) as forward:
        return _rate(median_seconds(lambda: forward(pixels), bench), batch_size) | peak.figures()


class DrawnSources:
    """The same drawn images as JPEG files and packed, made when they are first wanted."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> "DrawnSources":
        """Nothing is drawn yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was drawn."""
        self._folder.cleanup()

    @cached_property
    def jpeg(self) -> Source:
        """A folder of JPEG files."""
        root = Path(self._folder.name) / "jpeg"
        root.mkdir(exist_ok=True)
        write_images(root, self._count)
        return ImageFolder(root)

    @cached_property
    def packed(self) -> Source:
        """The same images, decoded."""
        return write_packed(Path(self._folder.name) / "packed", self.jpeg, workers=cores())


def loading(bench: Bench, source: Callable[[], Source], batch_size: int, workers: int, reader: Reader) -> Figures:
    """Batches of the loader, each on the device as a training step gets it."""
    images = source()
    loader = Loader(
        images,
        Endless(len(images)),
        batch_size=batch_size,
        workers=workers,
        reader=reader,
        prefetch=workers,
        pin_memory=bench.device.type == "cuda",
    )
    with closing(loader), closing(loader.batches(0)) as batches:
        once = len(images) // batch_size
        return _rate(_seconds_of_a_batch(batches, once, lambda batch: batch.to(bench.device), bench), batch_size)
