"""Published files: what they hold is found, what could harm is refused in one sentence, nothing is half-written."""

import argparse
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.errors import CheckpointError, ConfigError
from facelab.weights.published_file import fetch, read_state
from facelab.weights.tensor_files import read_tree

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


class Hostile:
    """What runs a command when Python's own unpickler reads it."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def assert_state(path: Path) -> None:
    state = read_state(str(path))
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", [None, "state_dict", "state_dict_backbone"])
def test_the_network_is_found_in_what_a_program_saves(key: str | None, legacy: bool, tmp_path: Path) -> None:
    content = STATE if key is None else {key: STATE, "epoch": 3, "optimizer": {"lr": 0.1, "state": [torch.ones(1)]}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert_state(tmp_path / "a.pth")


def test_lightning_files_are_read_without_lightning(tmp_path: Path, save_lightning: Callable[..., None]) -> None:
    save_lightning({"state_dict": STATE, "epoch": 1}, tmp_path / "a.ckpt")
    assert "pytorch_lightning" not in sys.modules
    assert_state(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"asks for 'pytorch_lightning\."):
        read_tree(tmp_path / "a.ckpt")  # checkpoints of ours hold no such thing


def test_settings_and_numbers_beside_the_network_are_passed_over(tmp_path: Path) -> None:
    beside = {"args": argparse.Namespace(lr=0.1, out=Path("x")), "best": np.float64(0.9), "curve": np.arange(3)}
    torch.save({"state_dict": STATE, **beside}, tmp_path / "a.pth")
    assert_state(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("call", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"(builtins\.)?eval"), (__import__, "__import__"), (exec, "exec")],
)
def test_a_hostile_file_is_refused_and_runs_nothing(call: Any, name: str, legacy: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = f"touch {mark}" if call is os.system else f"open({str(mark)!r}, 'w')"
    content = {"state_dict": STATE, "hyper_parameters": Hostile(call, command)}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    arguments = ["import", str(tmp_path / "a.ckpt"), "--as", "adaface:ir_18", "--out", str(tmp_path / "model")]
    error = CliRunner().invoke(cli.app, arguments).exception
    assert isinstance(error, CheckpointError)
    with pytest.raises(CheckpointError, match=rf"a\.ckpt' is refused: .* asks for '{name}'; nothing of it was run\.$"):
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_names_that_are_passed_over_are_exact(tmp_path: Path, foreign_class: Callable[..., type]) -> None:
    other = foreign_class("pytorch_lightning.callbacks.lambda_function.LambdaCallback")
    torch.save({"state_dict": STATE, "callbacks": other()}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"asks for 'pytorch_lightning\.callbacks\.lambda_function\.Lam"):
        read_state(str(tmp_path / "a.ckpt"))


@pytest.mark.filterwarnings("ignore")  # of torch, about the protocol
def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"asks for 'torch\.nn\.modules\.linear\.Linear'"):
        read_state(str(tmp_path / "a.pth"))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(STATE, protocol=4))
    with pytest.raises(CheckpointError, match="b.pkl' is (refused|not a readable checkpoint)"):
        read_state(str(tmp_path / "b.pkl"))


@pytest.mark.filterwarnings("ignore")  # of torch, about a protocol that a damaged byte announces
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused_wherever_they_are_cut_or_changed(form: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:place])
        with pytest.raises(CheckpointError, match="is not a (readable checkpoint|safetensors file): |is refused: "):
            read_state(str(path))
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 150):
        changed = bytearray(whole)
        changed[place] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        with suppress(CheckpointError):
            read_state(str(path))  # a changed value is still a value


def test_the_hub_is_asked_in_clear_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is not hf://OWNER/REPOSITORY/FILE"):
        fetch("hf://owner/repository")
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def offline(repository: str, file: str) -> str:
        raise OSError(f"no network for {file} of {repository}. More\nlines")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CheckpointError, match=r"\(no network for a/model\.pt of o/r\. More\); download the file"):
        fetch("hf://o/r/a")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"needs huggingface_hub: pip install 'facelab\[hub\]'"):
        fetch("hf://o/r/a")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_state(str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (torch.full((2,), torch.nan), r"no network can use: 1 with NaN or infinity \('conv.bias'\)"),
        (torch.tensor([1.0, torch.inf], dtype=torch.float16), r"1 with NaN or infinity \('conv.bias'\)"),
        (torch.ones(2).to_sparse(), r"no network can use: 1 sparse or without values \('conv.bias'\)"),
        (torch.ones(2, device="meta"), r"no network can use: 1 sparse or without values \('conv.bias'\)"),
    ],
)
def test_tensors_that_would_make_a_broken_network_are_refused(spoilt: Tensor, message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {**STATE, "conv.bias": spoilt}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        read_state(str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no file of torch.save"), (b"hello, no checkpoint", "no file of torch.save"), (None, "is a folder")],
)
def test_what_is_no_file_of_torch_is_called_so(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state(str(path))
