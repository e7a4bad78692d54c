"""The precision that a run chooses by itself, how it is shown and kept, and which kernels a GPU may take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from facelab.engine.kernels import kernels
from facelab.errors import ConfigError
from facelab.head.class_precision import factors_in, rounds_on_its_own
from facelab.run import precision
from facelab.run.precision import describe_arithmetic, faster_precision
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
CONVOLUTIONS = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5), nn.BatchNorm1d(5))
TRANSFORMER = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 5), nn.BatchNorm1d(5))


@pytest.mark.parametrize(
    ("network", "capability", "chosen"),
    [(CONVOLUTIONS, (9, 0), "fp16"), (TRANSFORMER, (9, 0), "bf16"), (TRANSFORMER, (7, 5), "fp16")],
)
def test_a_gpu_takes_what_the_table_says(
    network: nn.Module, capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert faster_precision(network, GPU) == chosen


@pytest.mark.parametrize(("multiplies", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_takes_what_it_multiplies(multiplies: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: multiplies)
    assert faster_precision(CONVOLUTIONS, CPU) == chosen


def test_a_run_keeps_and_shows_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go(**options: Any) -> str:
        console = Console(record=True, quiet=False, file=(tmp_path / "said").open("a"), width=200)
        words = ["training.precision=auto", "training.epochs=1", "training.device=cpu"]
        run_training(load_config(TINY, words), tmp_path / "run", console, **options)
        return console.export_text()

    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: True)
    assert "CPU, precision bf16 (auto), compile off" in go()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["precision"] == "bf16"
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: False)  # on another machine it goes on alike
    assert "precision bf16" in go(resume=True)


def test_the_line_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    config = load_config(TINY, ["training.precision=fp16", "training.cudnn_benchmark=false"])
    said = describe_arithmetic(config, GPU, "fp16")
    assert said == "NVIDIA H100, precision fp16, tf32 on, cudnn_benchmark off, compile off"
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert "cudnn_benchmark off" in describe_arithmetic(load_config(TINY, ["training.precision=fp16"]), GPU, "fp16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "CPU, precision fp32, compile off"),
        (["training.compile=max"], "CPU, precision fp32, compile max"),
        (["training.cuda_graph=true"], "CPU, precision fp32, compile off, cuda_graph on"),
        (["training.fused_norm=true"], "CPU, precision fp32, compile off, fused_norm on"),
        (
            ["training.cuda_graph=true", "training.fused_norm=true", "training.precision=bf16"],
            "CPU, precision bf16, compile off, cuda_graph on, fused_norm on",
        ),
    ],
)
def test_the_line_says_what_is_on(words: list[str], said: str) -> None:
    config = load_config(TINY, words)
    assert describe_arithmetic(config, CPU, config.training.precision) == said


def test_apex_has_fp16_alone() -> None:
    config = load_config(TINY, ["training.precision=auto", "training.amp=apex"])
    assert precision.resolve_precision(config, CONVOLUTIONS, CPU).training.precision == "fp16"  # type: ignore[arg-type]


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.precision"):
        load_config(TINY, ["training.precision=fp8"])


def test_kernels_are_put_back_and_class_rows_keep_theirs() -> None:
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul

    def now() -> tuple[str, str, bool]:
        return products.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark

    before = now()
    with kernels(tf32=False, cudnn_benchmark=False):
        assert now() == ("ieee", "ieee", False)
        assert not rounds_on_its_own(GPU)
    with kernels(tf32=True, cudnn_benchmark=True):
        assert now() == ("tf32", "tf32", True)
        assert rounds_on_its_own(GPU)
        assert not rounds_on_its_own(CPU)
        with factors_in("fp32", GPU):
            assert products.fp32_precision == "ieee"
        with factors_in("tf32", GPU):
            assert products.fp32_precision == "tf32"
    assert now() == before
