"""Where a step goes: the table of what a profiler saw, and the callback that records a run."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch._C._autograd import DeviceType

from facelab.errors import ConfigError
from facelab.run.profile_table import Share, operator_shares, phase_shares, profile_table
from facelab.run.run import RunResult

Run = Callable[..., RunResult]


@dataclass(frozen=True)
class Range:
    start: float
    end: float

    def elapsed_us(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Kernel:
    duration: float


@dataclass(frozen=True)
class Event:
    name: str
    time_range: Range
    kernels: list[Kernel] = field(default_factory=list)
    device_type: DeviceType = DeviceType.CPU


@dataclass(frozen=True)
class Average:
    key: str
    count: int
    self_cpu_time_total: float
    self_device_time_total: float
    device_type: DeviceType = DeviceType.CPU


def test_kernels_count_for_the_phase_that_launched_them() -> None:
    """Those of the backward pass come from another thread, and run on long after it."""
    events = [
        Event("facelab/forward", Range(0, 1000)),
        Event("facelab/backward", Range(1000, 3000)),
        Event("facelab/forward", Range(4000, 5000)),
        Event("aten::conv2d", Range(10, 20), [Kernel(100), Kernel(11)]),
        Event("aten::conv2d", Range(4010, 4020), [Kernel(200)]),
        Event("aten::convolution_backward", Range(2900, 2910), [Kernel(5000)]),
        Event("aten::add", Range(3500, 3510), [Kernel(7)]),
        Event("facelab/forward", Range(0, 9000), device_type=DeviceType.CUDA),  # the range as the GPU's lane shows it
    ]
    assert phase_shares(events) == [
        Share("forward", 2, 2000, 311),
        Share("backward", 1, 2000, 5000),
        Share("rest", 0, 1000, 7),
    ]


def test_operators_and_kernels_come_by_their_own_time() -> None:
    averages = [
        Average("aten::add", 4, 30.0, 10.0),
        Average("aten::mul", 4, 3.0, 20.0),
        Average("facelab/forward", 4, 900.0, 900.0),
        Average("add_kernel", 4, 0.0, 10.0, DeviceType.CUDA),
    ]
    assert [share.name for share in operator_shares(averages, on_device=False)] == ["aten::mul", "aten::add"]
    assert operator_shares(averages, on_device=True) == [Share("add_kernel", 4, 0.0, 10.0)]


def test_shares_are_of_the_whole_that_is_named() -> None:
    shares, whole = [Share("a", 2, 1000.0, 0.0), Share("b", 2, 3000.0, 0.0)], Share("step", 0, 8000.0, 0.0)
    of_rows, of_whole = profile_table("x", shares, 1).splitlines(), profile_table("x", shares, 1, whole).splitlines()
    assert [line.split()[-1] for line in of_rows[1:]] == ["25.0", "75.0"]
    assert [line.split()[-1] for line in of_whole[1:]] == ["12.5", "37.5"]
    assert profile_table("x", [Share("a", 0, 0.0, 0.0)], 1).splitlines()[1].split() == ["a", "0.00", "0.0"]


def test_the_table_is_aligned_and_of_one_step() -> None:
    shares = [Share("forward", 4, 6000.0, 0.0), Share("rest", 0, 2000.0, 0.0)]
    assert profile_table("a step", shares, 2).splitlines() == [
        "a step   calls  host ms     %",
        "forward      2     3.00  75.0",
        "rest               1.00  25.0",
    ]
    on_a_gpu = profile_table("a step", [Share("f" * 90, 4, 6000.0, 3000.0)], 2).splitlines()
    assert on_a_gpu[0].split() == ["a", "step", "calls", "host", "ms", "%", "GPU", "ms", "%"]
    assert on_a_gpu[1].split()[1:] == ["2", "3.00", "100.0", "1.50", "100.0"]
    assert len({len(line) for line in on_a_gpu}) == 1


def test_a_run_leaves_trace_and_table_of_what_it_came_to(
    tmp_path: Path, run_tiny: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["training.epochs=1", "training.accumulate=2", "callbacks={Profile: {updates: 50, skip: 2}}"]
    run_tiny(tmp_path / "run", *words)  # of four updates
    assert "profiler_start" not in capfd.readouterr().err, "PyTorch's recorder spoke into the progress"
    with gzip.open(tmp_path / "run" / "profile.json.gz") as file:
        trace = json.load(file)
    names = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    for name, count in {"loader": 4, "augmentation": 4, "forward": 4, "backward": 4, "optimizer": 2}.items():
        assert names.count(f"facelab/{name}") == count, name
    lines = (tmp_path / "run" / "profile.txt").read_text().splitlines()
    assert lines[0] == "2 updates up to update 4"
    assert [line.split()[0] for line in lines[3:10]] == [
        "loader", "augmentation", "forward", "backward", "optimizer", "rest", "step",
    ]  # fmt: skip
    assert any(line.startswith("aten::") for line in lines[12:])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("updates: 0", r"callbacks Profile updates is 0, but must lie in \[1, 1000\]"),
        ("skip: -1", "Profile skip is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, run_tiny: Run, option: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_tiny(tmp_path / "run", f"callbacks={{Profile: {{{option}}}}}")
