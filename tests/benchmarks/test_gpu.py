"""The benchmark of GPUs runs as a trial on the CPU, survives its rows, and starts where little is installed."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.backbone.base import BACKBONES
from facelab.catalogue import resolve

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def gpu() -> Any:
    return importlib.import_module("gpu")


def test_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    gpu().main(["--device", "cpu", "--tiny", "--out", str(out)])
    written = json.loads(out.read_text())
    of_a_gpu = [row for row in written["rows"] if row["note"] == "not measured: needs a CUDA device"]
    others = [row for row in written["rows"] if row not in of_a_gpu]
    assert all(row["status"] == "not measured" for row in of_a_gpu)
    words = ("compile", "norm", "cuda_graph", "tests that need CUDA")
    assert all(any(one in row["what"] for one in words) for row in of_a_gpu)
    assert len(others) >= 18
    for row in others:
        assert (row["status"], row["note"], row["details"]) == ("measured", "", "")
        assert row["figures"]["ms"] > 0
        ratio = {"of images on the device"} if "from JPEG" in row["what"] else set()
        assert set(row["figures"]) - {"ms", "images/s"} == ratio  # no memory on a CPU, and every number finite
    by_name = {(row["what"].split(",")[0], row["precision"]): row for row in others}
    assert by_name["training r50", "fp16"]["figures"]["images/s"] > 0
    assert {"torch", "cuda", "cudnn", "numpy", "opencv", "git_commit", "date", "cores"} <= set(written["machine"])
    lines = capsys.readouterr().out.splitlines()
    rows = lines[-len(written["rows"]) :]
    assert rows[1].startswith("training r50, 10 classes, written plainly")
    assert [line.split("  ")[0] for line in rows] == [row["what"] for row in written["rows"]]


def test_a_row_that_fails_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def exhausted() -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")

    def looks_at_the_file() -> dict[str, float]:
        failed, itself, _ = json.loads(out.read_text())["rows"]
        assert failed["status"] == "failed"
        assert itself["note"] == "not measured: the run ended before it"
        return {"ms": 2.0}

    out, Row = tmp_path / "gpu.json", gpu().Row  # noqa: N806
    rows = [Row("large", exhausted), Row("small", looks_at_the_file), Row("long", exhausted, seconds=90.0)]
    gpu().run(rows, CPU, minutes=1.0, out=out)
    large, small, long = json.loads(out.read_text())["rows"]
    assert large["note"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 80 GiB"
    assert "in exhausted" in large["details"]
    assert (small["status"], small["figures"]) == ("measured", {"ms": 2.0})
    assert long["status"] == "not measured"
    assert long["note"].startswith("not measured: takes up to 90 s, and ")
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[1].split() == ["small", "2"]
    assert lines[0].index("OutOfMemoryError: CUDA") == lines[2].index("not measured: takes") > len(lines[1])


def test_a_run_that_is_cut_off_shows_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> dict[str, float]:
        raise KeyboardInterrupt

    rows = [gpu().Row("one", lambda: {"ms": 1.0}), gpu().Row("two", interrupted), gpu().Row("three", interrupted)]
    with pytest.raises(KeyboardInterrupt):
        gpu().run(rows, CPU, minutes=9.0, out=tmp_path / "gpu.json")
    assert [row["status"] for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]] == [
        "measured",
        "not measured",
        "not measured",
    ]
    assert "three" in capsys.readouterr().out


def test_every_network_is_in_the_catalogue() -> None:
    bench = importlib.import_module("gpu_bench")
    for entry in bench.TINY:
        name, options = resolve(BACKBONES, entry)
        BACKBONES.parameters(name)
        assert options["input_spec"]["height"] in (112, 120)
    full = bench.Bench(CPU)
    rows = [*gpu().training_rows(full), *gpu().extraction_rows(full)]
    assert {row.what.split(",")[0].split()[1] for row in rows} == set(bench.TINY)
    assert {row.batch for row in rows} == {64, 128, 256, 512}


def test_blocks_are_long_enough_and_their_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("gpu_bench")
    clock = {"now": 0.0, "calls": 0}

    def step() -> None:
        clock["calls"] += 1
        clock["now"] += 9.0 if clock["calls"] == 8 else 0.4

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock["now"])
    assert math.isclose(bench.median_seconds(step, bench.Bench(CPU)), 0.4)
    assert clock["calls"] == 5 + 1 + 5 * 2


def test_memory_is_what_a_row_added(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("gpu_bench")
    memory = {"memory_allocated": 1 << 30, "max_memory_allocated": 7 << 30}
    for name in ("current_device", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("reset_peak_memory_stats", *memory):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: memory.get(name))
    peak = bench.Peak(torch.device("cuda"))
    assert peak.figures() == {"peak GiB": 6.0}
    assert peak.figures(4 << 30) == {"peak GiB": 6.0, "beside rows, momentum GiB": 2.0}


def test_steps_that_diverge_are_marked() -> None:
    rows = importlib.import_module("gpu_rows")
    weight = torch.nn.Parameter(torch.ones(2))
    config = rows.OptimizerConfig()
    groups = rows.parameter_groups([torch.nn.ParameterList([weight])], config)
    optim = rows.Optimization(groups, config, rows.ScheduleConfig(), total_updates=9, updates_per_epoch=9)
    optim.update(weight.sum())
    assert rows._diverged(optim) == {}
    optim.update(weight.sum() * torch.inf)
    assert rows._diverged(optim) == {"not finite": 1.0}


def test_norms_of_pytorch_are_measured_beside_ours() -> None:
    bench = importlib.import_module("gpu_bench").Bench(CPU, tiny=True)
    assert importlib.import_module("gpu_rows").norm(bench, 2, 8, 4, "bf16", fused_norm=False)["ms"] > 0
    norms = gpu().norm_rows(bench)
    assert len(norms) == 2 * len([row for row in norms if row.what.endswith("ours")]) == 12
    assert all(row.needs_cuda for row in [*norms, *gpu().fused_rows(bench)])


def test_the_aims_are_measured_beside_a_plain_program_and_before_the_rest() -> None:
    bench = importlib.import_module("gpu_bench").Bench(CPU)
    rows = gpu().all_rows(bench, None)
    networks = [row.what.split(",")[0] for row in rows[:9:2]]
    assert networks == [f"training {entry}" for entry in ("r50", "r100", "vit_s", "MobileFaceNet", "PETALSwin")]
    plain = [row for row in rows if row.what.endswith("written plainly")]
    assert [rows[rows.index(row) - 1].what for row in plain] == [
        row.what.removesuffix(", written plainly") for row in plain
    ]
    assert sum(row.seconds for row in rows[: rows.index(plain[-1]) + 2]) <= 180


def test_a_plain_step_is_the_same_work() -> None:
    """Its loss is that of our head and network on the same weights; its updates lower it."""
    torch.manual_seed(0)
    bench = importlib.import_module("gpu_bench").Bench(CPU, tiny=True)
    network, labels = bench.backbone("r50"), torch.tensor([3, 1])
    pixels = bench.pixels(network, 2)
    step = importlib.import_module("plain_step").PlainStep(network, pixels, labels, 10)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    rows = importlib.import_module("gpu_rows")
    ours = rows._classifier(bench, "FullSoftmax", 10, network.feat_dim)
    ours.weight.data.copy_(step.rows.data)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        wanted = float(ours(network(step.image), labels).loss)
    losses = [step() for _ in range(4)]
    assert losses[0] == pytest.approx(wanted, rel=0.02)
    assert losses[-1] < losses[0]


def test_some_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    gpu().main(["--device", "cpu", "--tiny", "--only", "extraction v", "PartialFC"])
    assert "[3/3] extraction vit_s bf16" in capsys.readouterr().out


def test_what_pytest_counted() -> None:
    counts = importlib.import_module("gpu_rows").counts
    assert counts("...\n2 passed, 1 skipped, 80 deselected in 1.2s\n", 0) == {"passed": 2.0, "skipped": 1.0}
    with pytest.raises(RuntimeError, match=r"^pytest ended with 1: 1 failed in 1\.2s\nF\n=+ 1 failed"):
        counts("F\n===== 1 failed in 1.2s =====", 1)


def test_the_tests_that_need_cuda_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = importlib.import_module("gpu_rows")
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "2 passed", "")

    monkeypatch.setattr(rows.subprocess, "run", run)
    assert rows.cuda_tests() == {"passed": 2.0}
    assert {"test_loader.py", "test_augment.py", "test_graphs_of_modes.py", "test_fused_norm_edges.py"} <= {
        Path(word).name for word in commands[0]
    }
    monkeypatch.setattr(rows.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(rows.RowSkipped, match="pytest is not installed"):
        rows.cuda_tests()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "on the CPU there is only a trial of the script: add --tiny"),
        (["--device", "cpu", "--tiny", "--minutes", "nan"], "--minutes is nan, but must be above 0"),
        (["--device", "cpu", "--tiny", "--only", "speed"], "--only is speed, but no row has such a name"),
        (["--device", "cpu", "--tiny", "--out", "/nowhere/gpu.json"], "there is no folder '/nowhere'"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu().main(arguments)
    assert message in capsys.readouterr().err


def test_it_starts_from_anywhere_without_the_command_line_s_packages(tmp_path: Path) -> None:
    for name in ("typer", "rich", "timm", "torchvision", "scipy", "matplotlib"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not installed')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "finds no CUDA device; without one, --device cpu --tiny tries the script" in done.stderr
