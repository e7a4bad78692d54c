"""Descriptions of models come from outside: each field is checked, none asks for more memory than its file has."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import facelab
from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.files import load_adapter, save_adapter
from facelab.adapter.gate import GATES
from facelab.backbone.base import BACKBONES, Backbone
from facelab.errors import CheckpointError, ConfigError, FacelabError
from facelab.quality.card import ScorerCard
from facelab.weights.card import adapter_card, model_card
from facelab.weights.model_folder import write_model

SMALL: dict[str, Any] = {"patch": 8, "dim": 8, "depth": 1, "heads": 2, "feat_dim": 4}
SPEC = {"height": 16, "width": 16}
ADAPTER, GATE = {"DualLoRA": {"rank": 2}}, {"sigmoid": {}}


def small() -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build("ViT", {**SMALL, "input_spec": SPEC}).eval()


def with_experts() -> AdaptedBackbone:
    gate = GATES.build("sigmoid", {})
    gate.calibrate([0.1, 0.9], ScorerCard(name="Sharpness", low=0.0))
    return AdaptedBackbone(small(), ADAPTERS.build("DualLoRA", ADAPTER["DualLoRA"]), gate).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with adapters."""
    network = with_experts()
    card = model_card("ViT", SMALL, network.network) | adapter_card(network, ADAPTER, GATE)
    card["scorer"] |= {"spec": {"Sharpness": {}}}
    return write_model(tmp_path_factory.mktemp("models") / "model", network.state_dict(), card)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("scorer", ["Sharpness", ["Sharpness"], {"base": 3}, {"card": {}}])
def test_a_scorer_is_checked_without_adapters_too(tmp_path: Path, scorer: Any) -> None:
    card = model_card("ViT", SMALL, small()) | {"scorer": scorer}
    with pytest.raises(CheckpointError, match=r"'.*/model' (cannot be used|is incomplete): 'scorer"):
        facelab.load(write_model(tmp_path / "model", small().state_dict(), card))


def test_a_scorer_may_be_null(tmp_path: Path) -> None:
    card = model_card("ViT", SMALL, small()) | {"scorer": None}
    model = facelab.load(write_model(tmp_path / "model", small().state_dict(), card))
    assert model.embed(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 4)


def changed(folder: Path, change: Change) -> None:
    """Change the description in a folder and the hash that the folder has of it."""
    card = json.loads((folder / "model.json").read_text())
    change(card)
    store(folder, json.dumps(card).encode())


def store(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["model.json"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be changed."""
    copied = tmp_path / "model"
    copied.mkdir()
    for path in folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


def test_the_model_itself_loads(model: Path) -> None:
    loaded = facelab.load(model, device="cpu")
    assert loaded.embed(np.zeros((16, 16, 3), np.uint8)).shape == (1, 4)
    assert isinstance(loaded.network, AdaptedBackbone)
    assert loaded.network.quality_scorer == ScorerCard(name="Sharpness", low=0.0)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("input.colour", "XYZ", r"'input\.colour' is 'XYZ': Input should be 'RGB' or 'BGR'"),
        ("input.height", 10**9, r"input_spec height is 1000000000, but must lie in \[1, 1024\]"),
        ("input.height", 16.5, r"'input\.height' is 16\.5"),
        ("input.width", True, r"'input\.width' is true"),
        ("input.mean", float("nan"), r"'input\.mean' is nan"),
        ("input.std", float("inf"), r"'input\.std' is inf"),
        ("input.std", 0, "input_spec std is 0"),
        ("input.std", "127.5", r"input_spec std is '127\.5', but must be a number"),
        ("input", [16, 16], "'input' is "),
        ("feat_dim", 10**9, "'feat_dim' is 1000000000"),
        ("feat_dim", -1, "'feat_dim' is -1"),
        ("feat_dim", 2**20, "far larger than its .* tensors"),
        ("backbone.options.depth", 1000, "far larger than its .* tensors"),
        ("backbone.options.depth", 10**18, "no network has options of 1000000000000000000"),
        ("backbone.options.dim", 2**16, "far larger than its .* tensors"),
        ("backbone.options.depth", "deep", "option 'depth'"),
        ("backbone.options.weights", "/etc/passwd", "'weights' has no place here"),
        ("backbone.options.feat_dim", 8, "'feat_dim' has no place here"),
        ("backbone.options.other", [0] * 5000, "more than 4096 values"),
        ("backbone.options", "none", r"'backbone\.options' is 'none'"),
        ("backbone.name", ["ViT"], r"'backbone\.name' is \['ViT'\]"),
        ("backbone.name", "Vit", "unknown backbone 'Vit'. Did you mean 'ViT'"),
        ("plugins", "os", "'plugins' is 'os'"),
        ("adapter", {}, "'adapter' is {}"),
        ("adapter", {"DualLoRA": {}, "LoRA": {}}, "'adapter' is "),
        ("adapter.DualLoRA.rank", 10**6, "is larger than the layer"),
        ("adapter.DualLoRA", [], r"'adapter\.DualLoRA' is \[\]"),
        ("gate", "sigmoid", "'gate' is 'sigmoid'"),
        ("gate", None, "needs a gate"),
        ("scorer.card.low", "low", r"'scorer\.card\.low' is 'low'"),
        ("scorer.spec", ["Sharpness"], r"'scorer\.spec' is "),
        ("base_hash", 7, "'base_hash' is 7"),
        ("embedding_dim", 10**9, "'embedding_dim' is 1000000000"),
        ("parameters", "many", "'parameters' is 'many'"),
        ("format", [1], r"has format \[1\]"),
    ],
)
def test_what_a_description_may_not_say(model: Path, place: str, value: Any, sentence: str) -> None:
    *path, last = place.split(".")

    def change(card: dict[str, Any]) -> None:
        inner = card
        for part in path:
            inner = inner[part]
        inner[last] = value

    changed(model, change)
    with pytest.raises(FacelabError, match=sentence):
        facelab.load(model, device="cpu")


@pytest.mark.parametrize("field", ["backbone", "input", "feat_dim", "parameters", "base_hash"])
def test_what_is_missing_is_named(model: Path, field: str) -> None:
    changed(model, lambda card: card.pop(field))
    with pytest.raises(CheckpointError, match=f"is incomplete: '{field}' is missing"):
        facelab.load(model, device="cpu")


def test_a_description_nested_without_end_is_refused(model: Path) -> None:
    store(model, b'{"format": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        facelab.load(model, device="cpu")


def test_timm_models_name_no_files() -> None:
    """PyTorch Image Models unpickles what ``checkpoint_path`` names."""
    options = {"model": "test_resnet", "options": {"checkpoint_path": "model.bin"}}
    with pytest.raises(ConfigError, match="cannot have 'checkpoint_path': nothing is downloaded or unpickled"):
        BACKBONES.build("Timm", options)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([-1, 0, 1, 2, 3, 7, 10**6, 10**9])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["RGB", "LoRA", "Full", "Swin", "MobileFaceNet", "Timm", "linear", "learned", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_description_says_only_errors_of_facelab_leave(
    folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    card = json.loads((folder / "model.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from([place for place in places(card) if place]))
        inner = card
        for part in path:
            inner = inner[part]
        if data.draw(st.booleans()) or isinstance(inner, list):
            inner[last] = data.draw(ODD)
        else:
            inner[data.draw(st.sampled_from(["weights", "patch", "heads", "targets", "tau", "x"]))] = data.draw(ODD)
    copied = tmp_path / "fuzzed"
    copied.mkdir(exist_ok=True)
    for name in ("model.safetensors", "manifest.json"):
        (copied / name).write_bytes((folder / name).read_bytes())
    store(copied, json.dumps(card).encode())
    with suppress(FacelabError):
        loaded = facelab.load(copied, device="cpu")
        loaded.embed(np.zeros((1, *loaded.input_spec.size, 3), np.uint8))


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_of_adapters_says_only_errors_of_facelab_leave(tmp_path: Path, data: st.DataObject) -> None:
    header: dict[str, Any] = {"adapter": copy.deepcopy(ADAPTER), "gate": copy.deepcopy(GATE)}
    header["scorer"] = {"card": ScorerCard(name="Sharpness", low=0.0).model_dump(), "spec": {"Sharpness": {}}}
    *path, last = data.draw(st.sampled_from([place for place in places(header) if place]))
    inner = header
    for part in path:
        inner = inner[part]
    inner[last] = data.draw(ODD)
    file = tmp_path / "adapter.safetensors"
    save_adapter(file, with_experts(), header["adapter"], header["gate"], header["scorer"])
    with suppress(FacelabError):
        load_adapter(file, small())
