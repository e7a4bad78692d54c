"""Runs whose network is shared out over two processes: they learn what runs of whole networks learn, and resume."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor

from facelab import distributed
from facelab.errors import ConfigError
from facelab.model.face_model import load_model
from facelab.run.assembly import assemble
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.test_protocol.base import Report
from facelab.test_protocol.extraction import embed
from facelab.test_protocol.protocols.synthetic import SyntheticPairs
from facelab.test_protocol.run import run_protocols
from facelab.training_mode.base import MODES
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
PROTOCOL = "evaluation.protocols={synthetic: {SyntheticPairs: {identities: 9, per_identity: 3, folds: 2, pairs: 12}}}"
ADAMW = ["optimizer.name=adamw", "optimizer.lr=0.002"]
VIT = ["backbone={ViT: {patch: 8, dim: 12, depth: 2, heads: 2, feat_dim: 9}}", PROTOCOL, "training.clip_norm=1"]
SWIN = "backbone={Swin: {patch: 4, dim: 6, depths: [1, 1], heads: [1, 2], window: 4, feat_dim: 9}}"
GATED = "backbone={ViT: {patch: 8, dim: 12, depth: 2, heads: 2, feat_dim: 9, patch_gate: true}}"
KEPT = "checkpoint.keep_every_epochs=1"
UPDATES_PER_EPOCH = 4

RUNS = {
    "vit": [*VIT, *ADAMW, KEPT, "training.accumulate=2", "training.precision=bf16"],
    "transface": [GATED, "mode=transface", "training.epochs=1", "training.gradient_compression=bf16"],
    "triplet": [
        *[SWIN, "mode={triplet: {losses: {Triplet: 1}}}", "classifier=null", "head=null", "training.epochs=1"],
        "data.sampler={ClassBalanced: {images_per_class: 4}}",
    ],
}

TOLERANCE = {"transface": 0.02, "triplet": 0.01}  # compressed are the gradients of other sums; few triplets are chosen


def adapted(folder: Path, adapter: str) -> list[str]:
    held = ["mode={adaptation: {distillation: 0.5}}", "backbone=null", f"base={folder / 'base'}", "training.epochs=1"]
    return [*held, f"adapter={adapter}"]


def settings(folder: Path) -> dict[str, list[str]]:
    taught = [f"mode.distillation.teacher={folder / 'base'}", "mode.distillation.losses={FitNet: 1, Angular: 1}"]
    return {
        **RUNS,
        "lora": adapted(folder, "{LoRA: {rank: 2}}"),
        "full": adapted(folder, "Full"),
        "distillation": [SWIN, *taught, "mode.distillation.classification=1", "training.epochs=1"],
    }


def train(folder: Path, name: str, form: str, place: str | None = None, resume: bool = False) -> None:
    words = [*settings(folder)[name], f"training.parallel={form}"]
    run = folder / (place or f"{name}-{form}")
    assert run_training(load_config(TINY, words), run, Console(quiet=True), resume=resume).progress.complete


def train_all(folder: Path) -> None:
    for name in settings(folder):
        for form in ("ddp", "fsdp"):
            train(folder, name, form)


def go_on(folder: Path) -> None:
    for before in ("ddp", "fsdp"):
        for form in ("ddp", "fsdp"):
            train(folder, "vit", form, f"vit-{before}-then-{form}", resume=True)


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def moved(run: Path) -> dict[str, Tensor]:
    """Weights and what the optimiser keeps."""
    training = read_tree(last(run) / "training.pt")
    flat = dict(training["mode"]["network"])
    for number, optimizer in enumerate(training["optimization"]["optimizers"]):
        for index, state in optimizer.items():
            flat |= {f"{number}.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return flat


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_near(found: Path, expected: Path, tolerance: float) -> None:
    one, other = moved(expected), moved(found)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        distance = float((other[name].float() - tensor.float()).abs().max())
        # Gradients of biases before a BatchNorm are rounding alone.
        assert distance <= tolerance * float(tensor.float().abs().max()) + 1e-4, name
    assert len(logged(found)) == len(logged(expected))
    for line, same in zip(logged(found), logged(expected), strict=True):
        assert line == pytest.approx(same, rel=max(10 * tolerance, 1e-4), abs=1e-4)


@pytest.mark.slow
def test_runs_learn_the_same_in_both_forms_and_go_on_in_either(
    tmp_path: Path, run_tiny: Callable[..., RunResult], cut_back: Callable[[Path, Path, int], Path]
) -> None:
    run_tiny(tmp_path / "base", SWIN, "training.epochs=1")
    distributed.run_processes(train_all, 2, tmp_path)
    for name in settings(tmp_path):
        assert_near(tmp_path / f"{name}-fsdp", tmp_path / f"{name}-ddp", TOLERANCE.get(name, 2e-3))
        model, same = (read_model(last(tmp_path / f"{name}-{form}")) for form in ("fsdp", "ddp"))
        assert {key: (one.shape, one.dtype) for key, one in model.items()} == {
            key: (one.shape, one.dtype) for key, one in same.items()
        }

    for before in ("ddp", "fsdp"):
        for form in ("ddp", "fsdp"):
            cut_back(tmp_path / f"vit-{before}", tmp_path / f"vit-{before}-then-{form}", UPDATES_PER_EPOCH)
    distributed.run_processes(go_on, 2, tmp_path)
    for form, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
        whole, resumed = moved(tmp_path / f"vit-{form}"), moved(tmp_path / f"vit-{form}-then-{form}")
        assert [name for name, tensor in whole.items() if not tensor.equal(resumed[name])] == []
        assert_near(tmp_path / f"vit-{form}-then-{other}", tmp_path / f"vit-{form}", 2e-3)
    # Alone it sees other parts of the batch in BatchNorm, but goes on.
    cut_back(tmp_path / "vit-fsdp", tmp_path / "alone", 2 * UPDATES_PER_EPOCH)
    train(tmp_path, "vit", "ddp", "alone", resume=True)


def evaluated(folder: Path) -> tuple[Report, list[int]]:
    """The report after a short run, and the numbers of the images that this process embedded for it."""
    seen: list[int] = []
    embedded = embed.embedded_blocks

    def watched(forward: Any, images: Any, blocks: Sequence[range], *rest: Any) -> Iterator[Any]:
        seen.extend(index for block in blocks for index in block)
        return embedded(forward, images, blocks, *rest)

    with mock.patch.object(embed, "embedded_blocks", watched):
        words = [*VIT, "training.epochs=1", "training.parallel=fsdp", "evaluation.batch_size=4"]
        result = run_training(load_config(TINY, words), folder, Console(quiet=True))
    return result.reports[0], seen


@pytest.mark.slow
def test_each_process_embeds_its_share_and_all_report_what_one_process_finds(tmp_path: Path) -> None:
    (report, first), (same, second) = distributed.run_processes(evaluated, 2, tmp_path / "run")
    protocol = SyntheticPairs(identities=9, per_identity=3, folds=2, pairs=12, size=32)
    assert first, "the first process embeds a part"
    assert second, "so does the second"
    assert sorted(first + second) == list(range(len(protocol.images)))
    (alone,) = run_protocols(load_model(str(tmp_path / "run"), device="cpu").network, [("synthetic", protocol)])
    assert report.metrics == same.metrics
    values, expected = ([one.value for one in found.metrics] for found in (report, alone))
    assert values == pytest.approx(expected, abs=1e-6)
    for process in (report, same):
        np.testing.assert_array_equal(process.trials["same"], alone.trials["same"])
        np.testing.assert_allclose(process.trials["score"], alone.trials["score"], rtol=0, atol=1e-6)


QUEUE, POOL = "classifier={PrototypeQueue: {size: 19}}", "classifier={ClassPool: {fraction: 1.0}}"
OWN_BASE = ["backbone=null", "base={base}", "mode={adaptation: {distillation: 0.5}}"]
REFUSED = {
    "a moving average of the weights (ema) needs the whole network on each process": ["mode.conventional.ema=0.9"],
    "a gallery network needs the whole network": [
        *["mode=semi_siamese", QUEUE, "data.sampler={ClassBalanced: {images_per_class: 2}}"]
    ],
    "a gallery network needs the whole network on": ["mode=class_pool", POOL, "data.sampler=PairsAndInstances"],
    "transface ranking: fresh needs the whole network": ["mode={transface: {ranking: fresh}}"],
    "the mode 'occlusion', which reaches into its feature maps, needs the whole": [
        *["mode={occlusion: {segmentation: 0}}", "data.augment.occlude={probability: 0.5}"]
    ],
    "training.amp=apex changes whole parameters": ["training.amp=apex"],
    "training.compile=default makes one graph of a network": ["training.compile=default"],
    "training.parallel=fsdp gathers a network block by block, and MobileFaceNet names no blocks": [
        "backbone=MobileFaceNet"
    ],
    "training.parallel=fsdp cuts parameters into rows, and 'gate.": [
        *[*OWN_BASE, "adapter={DualLoRA: {rank: 2}}", "gate=learned", "data.quality={Sharpness: {}}"]
    ],
}


def mode_of(words: Sequence[str]) -> str:
    named = [re.match(r"mode(?:\.|=\{?)(\w+)", word) for word in words]
    return next((found[1] for found in named if found), "conventional")


def refused(base: Path) -> list[str]:
    said = []
    for words in REFUSED.values():
        chosen = [GATED, "training.parallel=fsdp", *(word.replace("{base}", str(base)) for word in words)]
        with pytest.raises(ConfigError) as caught:
            run_training(load_config(TINY, chosen), None, Console(quiet=True))
        said.append(str(caught.value))
    return said


@pytest.mark.slow
def test_what_needs_whole_networks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_tiny: Callable[..., RunResult]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_tiny(tmp_path / "base", GATED, "training.epochs=1")
    for message, expected in zip(distributed.run_processes(refused, 2, tmp_path / "base")[0], REFUSED, strict=True):
        assert message.startswith(expected)
        assert message.endswith("training.parallel=ddp.")


def test_every_mode_is_trained_or_refused_here() -> None:
    trained = {mode_of(words) for words in settings(Path()).values()}
    assert trained | {mode_of(words) for words in REFUSED.values()} == set(MODES.names())


def test_one_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="shares a network out over processes, and there is one; .*parallel=ddp"):
        assemble(load_config(TINY, [GATED, "training.parallel=fsdp"]))
