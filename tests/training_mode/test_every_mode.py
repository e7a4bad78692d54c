"""What holds for every registered training mode, on a run of seconds."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import facelab
from facelab.distributed import run_processes
from facelab.engine import compilation
from facelab.engine.loop import MetricWindow, plain_step
from facelab.errors import CheckpointError, ConfigError
from facelab.run.assembly import assemble
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.training_mode.base import MODES
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.class_rows import count_rows, read_rows
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
UPDATES_PER_EPOCH = 4
GATED = "{ViT: {patch: 8, dim: 16, depth: 1, heads: 2, feat_dim: 16, patch_gate: true}}"
# What a mode needs beside its defaults; {base} is a trained run. A new one needs a line only if it needs something.
SMALL: dict[str, list[str]] = {
    "adaptation": ["backbone=null", "base={base}", "adapter={LoRA: {rank: 4}}"],
    "distillation": ["mode.distillation.teacher={base}"],
    "class_pool": ["classifier={ClassPool: {fraction: 1.0}}", "data.sampler=PairsAndInstances"],
    "occlusion": ["data.augment.occlude={probability: 0.5}"],
    "semi_siamese": [
        "mode.semi_siamese.decay=0.9",
        "classifier={PrototypeQueue: {size: 19}}",
        "data.sampler={ClassBalanced: {images_per_class: 2}}",
    ],
    "triplet": ["data.sampler={ClassBalanced: {images_per_class: 4}}"],
    "transface": [f"backbone={GATED}", "mode.transface.patches=3", "mode.transface.probability=0.5"],
}
# What looks at this process's part of the batch alone, left out where two processes are to see the loss of one.
WITHOUT_PARTS: dict[str, list[str]] = {"transface": ["mode.transface.probability=0"]}
# What else a mode can look up in a step: scores of what augmentation left, embeddings that a teacher gave before.
FULL: dict[str, list[str]] = {
    "adaptation": [
        "adapter=null",
        "adapter={DualLoRA: {rank: 2}}",
        "gate=sigmoid",
        "data.quality={Sharpness: {}}",
        "data.online_quality=true",
        "mode.adaptation.distillation=1",
    ],
    "distillation": ["mode.distillation.view=stored", "mode.distillation.cache={base}/cache"],
}

# Whose steps have as many rows or pairs as the numbers on the device say, so that the host must know them.
CHOOSES_BY_NUMBERS: dict[str, str] = {
    "class_pool": "the pool looks up whose rows it has",
    "triplet": "the number of pairs follows from the labels",
}
# Whose networks are another function in each pass.
CHANGES: dict[str, str] = {
    "occlusion": "makes one program of the network, but occlusion drops cells in the middle of it"
}

every_mode = pytest.mark.parametrize("name", MODES.names())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run to go on from."""
    folder = tmp_path_factory.mktemp("base") / "base"
    run_training(load_config(TINY, ["training.epochs=1"]), folder, Console(quiet=True))
    return folder


def settings(name: str, base: Path, *more: str) -> list[str]:
    return [f"mode={name}", *(word.replace("{base}", str(base)) for word in [*SMALL.get(name, []), *more])]


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def tensors(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested state, by its place."""
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {key: value for name, inner in items for key, value in tensors(inner, f"{path}/{name}").items()}


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Everything that a run leaves behind: what the mode and the optimiser remember, class rows, the exported model."""
    training = read_tree(last(run) / "training.pt")
    kept = {key: training[key] for key in ("mode", "optimization")}
    rows = read_rows(last(run), 0, count_rows(last(run)).get("classifier", 0), "classifier")
    return {**tensors(kept), **rows, **read_model(last(run))}


def losses(run: Path) -> list[float]:
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in logged if "loss" in line]


@every_mode
def test_everything_that_it_trains_gets_a_finite_gradient(name: str, base: Path) -> None:
    parts = assemble(load_config(TINY, settings(name, base)))
    output = parts.mode.step(next(iter(parts.feed.batches(0, 0))))
    output.loss.backward()
    modules = [*parts.mode.trained_modules(), *parts.mode.row_owners().values()]
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in trained)
    assert output.loss.shape == ()
    assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())
    own = [*modules, *(part for part in vars(parts.mode).values() if isinstance(part, torch.nn.Module))]
    assert not any(buffer.requires_grad for part in own for buffer in part.buffers()), "steps would hang together"


@every_mode
def test_it_learns_and_ends_with_the_same_bits_when_killed_and_resumed(
    name: str, base: Path, tmp_path: Path, run_tiny: Run, cut_back: Cut
) -> None:
    words = settings(name, base, "training.epochs=6", "checkpoint.keep_every_epochs=1", "training.log_every=4")
    whole = run_tiny(tmp_path / "whole", *words).folder
    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_tiny(cut, *words, resume=True).progress.complete
    expected, found = state_of(whole), state_of(cut)
    assert expected.keys() == found.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    assert losses(whole)[-1] < losses(whole)[0]


def first_step(name: str, base: Path, device: torch.device) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of the first batch, on the CPU."""
    words = (f"training.device={device.type}", *WITHOUT_PARTS.get(name, []))
    parts = assemble(load_config(TINY, settings(name, base, *words)))
    output = parts.mode.step(next(iter(parts.feed.batches(0, 0))))
    output.loss.backward()
    modules = [*parts.mode.trained_modules(), *parts.mode.row_owners().values()]
    gradients = [one.grad for module in modules for one in module.parameters() if one.grad is not None]
    return float(output.loss.detach()), [gradient.cpu().to_dense() for gradient in gradients]


@pytest.mark.cuda
@every_mode
def test_a_gpu_takes_the_step_of_the_cpu(name: str, base: Path, gpu: torch.device) -> None:
    (wanted_loss, wanted), (loss, found) = (first_step(name, base, one) for one in (torch.device("cpu"), gpu))
    assert loss == pytest.approx(wanted_loss, rel=1e-4)
    assert len(found) == len(wanted)
    whole = float(torch.stack([gradient.norm() for gradient in wanted]).norm())
    for one, other in zip(found, wanted, strict=True):
        # Beside the whole, because gradients of layers in front of a BatchNorm may be nothing but rounding.
        assert float((one - other).norm()) <= 5e-2 * float(other.norm()) + 1e-3 * whole


@pytest.mark.cuda
@every_mode
def test_a_run_on_a_gpu_learns_and_resumes(
    name: str, base: Path, tmp_path: Path, run_tiny: Run, cut_back: Cut, gpu: torch.device,
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A mode whose operations all have a deterministic form repeats in bits, and then it resumes in bits too."""
    words = settings(name, base, "training.epochs=4", "checkpoint.keep_every_epochs=1", "training.log_every=4")
    words += [f"training.device={gpu.type}", "training.precision=fp16", "training.cudnn_benchmark=false"]
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    request.addfinalizer(partial(torch.use_deterministic_algorithms, False))
    whole, again = (run_tiny(tmp_path / one, *words).folder for one in ("whole", "again"))
    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_tiny(cut, *words, resume=True).progress.complete
    expected, repeated, found = state_of(whole), state_of(again), state_of(cut)
    assert expected.keys() == found.keys()
    repeats = all(torch.equal(tensor, repeated[key]) for key, tensor in expected.items())
    assert repeats or name != "conventional"
    if repeats:
        assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    assert losses(cut)[-1] == pytest.approx(losses(whole)[-1], rel=0.05)
    assert losses(whole)[-1] < losses(whole)[0]


@pytest.mark.cuda
@every_mode
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_step_on_a_gpu_waits_for_nothing(
    name: str, precision: str, base: Path, gpu: torch.device, request: pytest.FixtureRequest
) -> None:
    """From the batch on the GPU to its update."""
    if name in CHOOSES_BY_NUMBERS:
        pytest.skip(CHOOSES_BY_NUMBERS[name])
    request.addfinalizer(partial(torch.cuda.set_sync_debug_mode, "default"))
    words = [f"training.device={gpu.type}", f"training.precision={precision}", "training.clip_norm=5"]
    parts = assemble(load_config(TINY, settings(name, base, *words, *FULL.get(name, []))))
    feed = parts.feed.batches(0, 0)
    for number in range(UPDATES_PER_EPOCH - 1):
        torch.cuda.set_sync_debug_mode("error" if number == UPDATES_PER_EPOCH - 2 else "default")
        batch = next(feed)
        with parts.optim.autocast():
            output = parts.mode.step(batch)
        parts.optim.update(output.loss)
        parts.mode.after_update()


@every_mode
def test_a_step_looks_at_no_number(name: str, base: Path, host_waits: Any) -> None:
    """The same where there is no GPU, by what asks for numbers; the step of a schedule, a loss scale and clipping."""
    precision = "fp16" if name == "conventional" else "fp32"  # which is slow on a CPU
    words = [f"training.precision={precision}", "training.clip_norm=5", *FULL.get(name, [])]
    parts = assemble(load_config(TINY, settings(name, base, *words)))
    step, feed, window = plain_step(parts.mode, parts.optim), parts.feed.batches(0, 0), MetricWindow()
    for _ in range(2):
        batch = next(feed)
        with host_waits:
            output, norm = step(batch)
            parts.mode.after_update()
            window.add({"loss": output.loss, **output.metrics, "norm": norm})
    assert bool(host_waits.lines) == (name in CHOOSES_BY_NUMBERS), host_waits.lines


@pytest.mark.slow
@every_mode
def test_its_network_is_one_compiled_graph_or_refused(name: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "OPTIONS", {"default": {"backend": backend}})
    words = settings(name, base, *FULL.get(name, []))
    if name in CHANGES:
        with pytest.raises(ConfigError, match=CHANGES[name]):
            assemble(load_config(TINY, [*words, "training.compile=default"]))
        return
    losses = []
    for how in ("off", "default"):
        parts = assemble(load_config(TINY, [*words, f"training.compile={how}"]))
        output, _ = plain_step(parts.mode, parts.optim)(next(iter(parts.feed.batches(0, 0))))
        losses.append(float(output.loss.detach()))
    assert len(graphs) == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@every_mode
@pytest.mark.parametrize("part", ["network", "classifier"])
def test_a_state_that_lacks_a_tensor_is_refused(name: str, part: str, base: Path) -> None:
    """Also one of the head, such as CurricularFace's moving average, and one of the adapters."""
    mode = assemble(load_config(TINY, settings(name, base, "head=CurricularFace"))).mode
    state = mode.state()
    if part not in state:
        pytest.skip(f"{name} has no {part}")
    mode.load_state(state)
    lost = next(reversed(state[part]))
    del state[part][lost]
    with pytest.raises(CheckpointError, match=rf"training\.pt' do not fit .*: 1 missing \('{re.escape(lost)}'\)"):
        mode.load_state(state)


@every_mode
def test_local_state_that_lacks_a_buffer_is_refused(name: str, base: Path) -> None:
    mode = assemble(load_config(TINY, settings(name, base))).mode
    state = {network: dict(buffers) for network, buffers in mode.local_state().items()}
    lost = state["network"].popitem()[0]
    with pytest.raises(CheckpointError, match=rf"1 missing \('{re.escape(lost)}'\)"):
        mode.load_local_state(state)


@every_mode
def test_the_exported_network_is_the_one_that_is_evaluated(name: str, base: Path, tmp_path: Path) -> None:
    config = load_config(TINY, settings(name, base, "training.epochs=1"))
    run = run_training(config, tmp_path / "run", Console(quiet=True)).folder
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    embeddings = facelab.load(run).embed(pixels)
    assert embeddings.shape == (2, 16)
    assert np.isfinite(embeddings).all()
    exported = facelab.load(run).network.state_dict()
    assert all(torch.equal(tensor, exported[key]) for key, tensor in read_model(last(run)).items())


def first_losses(base: str) -> dict[str, float]:
    """Loss of the first batch in each mode; in evaluation mode BatchNorm does not look at a whole batch."""
    found = {}
    for name in MODES.names():
        parts = assemble(load_config(TINY, settings(name, Path(base), *WITHOUT_PARTS.get(name, []))))
        for module in (*parts.mode.trained_modules(), *parts.mode.networks().values()):
            module.eval()
        found[name] = float(parts.mode.step(next(iter(parts.feed.batches(0, 0)))).loss.detach())
    return found


@pytest.fixture(scope="module")
def shares(base: Path) -> list[dict[str, float]]:
    """Losses of two processes; all modes in one start, because starting takes longer than computing."""
    return run_processes(first_losses, 2, str(base))


@every_mode
def test_two_processes_see_the_loss_of_one(name: str, base: Path, shares: list[dict[str, float]]) -> None:
    alone = first_losses(str(base))[name]
    assert np.mean([share[name] for share in shares]) == pytest.approx(alone, rel=1e-4)
