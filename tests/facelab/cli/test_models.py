"""``facelab import``, ``merge`` and ``export-adapter``: what they write is loaded back, the rest refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

import facelab
from facelab.adapter.base import ADAPTERS, AdaptedBackbone, Adapter
from facelab.backbone.base import Backbone
from facelab.cli import main as cli
from facelab.errors import CheckpointError, ConfigError, DataError, FacelabError
from facelab.model.face_model import FaceModel
from facelab.model.stored_model import find_checkpoint

LORA = ["adapter={LoRA: {rank: 2}}", "data.quality=null"]


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def lora(adapt: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(tmp_path_factory.mktemp("adapted") / "lora", *LORA)


def at_gate(model: FaceModel, photos: list[Path], gate: float) -> np.ndarray:
    """Embeddings of an adapted model for one gate, by putting the scores in the place that gives it."""
    assert isinstance(model.network, AdaptedBackbone)
    gates = model.network.gate
    assert gates is not None
    score = float(gates.tau + gates.temperature * np.log(gate / (1 - gate)))
    return model.embed(photos, quality=[score] * len(photos))


def test_a_merged_model_is_an_ordinary_one(dual: Path, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"say for which gate to merge them, e\.g\. --gate 0\.5"):
        run("merge", str(dual), "--out", str(tmp_path / "none"))
    run("merge", str(dual), "--gate", "0.3", "--out", str(tmp_path / "merged"))
    merged = facelab.load(tmp_path / "merged")
    assert not merged.network.needs_quality
    np.testing.assert_allclose(merged.embed(photos), at_gate(facelab.load(dual), photos, 0.3), atol=1e-5)
    with pytest.raises(ConfigError, match="has no adapters"):
        run("merge", str(tmp_path / "merged"), "--out", str(tmp_path / "twice"))
    with pytest.raises(DataError, match="exists already"):
        run("merge", str(dual), "--gate", "0.3", "--out", str(tmp_path / "merged"))


class Softened(Adapter):
    """What a third party may do: train the norms, and change a number that no state dict holds."""

    def inject(self, network: Backbone) -> None:
        """Every BatchNorm layer divides by a larger deviation."""
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.requires_grad_(True)
                layer.eps = 1.0


def test_an_adapter_that_cannot_be_merged_is_refused(
    adapt: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged weights would be those of a network that embeds otherwise."""
    monkeypatch.setitem(ADAPTERS._classes, "Softened", Softened)
    folder = adapt(tmp_path / "softened", "adapter=Softened", "data.quality=null", "training.epochs=1")
    with pytest.raises(ConfigError, match="gives embeddings that are .* % away from those of the adapted one"):
        run("merge", str(folder), "--out", str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_joined_spaces_are_shown_and_merging_says_what_it_leaves(adapt: Callable[..., Path], tmp_path: Path) -> None:
    """Embeddings of 2 x 16 numbers; the merged model has 16, and its card knows nothing of adapters."""
    adapter = "adapter={DualLoRA: {rank: 2, experts: low, crossing: 1.0, joined: 0.7}}"
    model = adapt(tmp_path / "joined", adapter, "gate=sigmoid")
    assert "│ embedding   │ 32 " in run("show", str(model))
    text = run("merge", str(model), "--gate", "0.3", "--out", str(tmp_path / "merged"))
    assert "16 numbers instead of 32: the two spaces are joined no more" in " ".join(text.split())
    merged = facelab.load(tmp_path / "merged")
    assert merged.feat_dim == 16
    assert "embedding_dim" not in merged.card


def test_a_file_of_adapters_fits_its_base_alone(
    dual: Path, trained_run: Path, photos: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "dual.safetensors"
    written = run("export-adapter", str(dual), "--out", str(file))
    assert f"{sum(tensor.numel() for tensor in load_file(file).values()):,} parameters of adapters" in written
    assert file.stat().st_size < (find_checkpoint(dual) / "model.safetensors").stat().st_size / 2
    loaded = facelab.load(trained_run, adapter=file)
    scores = [0.1, 0.9]
    np.testing.assert_array_equal(
        loaded.embed(photos, quality=scores), facelab.load(dual).embed(photos, quality=scores)
    )
    assert loaded.card["adapter"] == {"DualLoRA": {"rank": 2}}
    run("merge", str(dual), "--gate", "0.3", "--out", str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="load the base that they were trained on"):
        facelab.load(tmp_path / "other", adapter=file)
    with pytest.raises(CheckpointError, match="has adapters already; name its base"):
        facelab.load(dual, adapter=file)


def test_plain_lora_is_written_for_peft(lora: Path, dual: Path, tmp_path: Path) -> None:
    run("export-adapter", str(lora), "--out", str(tmp_path / "peft"), "--peft")
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    with pytest.raises(ConfigError, match="holds plain LoRA alone"):
        run("export-adapter", str(dual), "--out", str(tmp_path / "no"), "--peft")


def test_a_folder_written_for_peft_is_read_back(
    lora: Path, trained_run: Path, photos: list[Path], tmp_path: Path
) -> None:
    run("export-adapter", str(lora), "--out", str(tmp_path / "peft"), "--peft")
    expected = facelab.load(lora).embed(photos)
    for path in (tmp_path / "peft", *(tmp_path / "peft").iterdir()):
        loaded = facelab.load(trained_run, adapter=path)
        np.testing.assert_allclose(loaded.embed(photos), expected, atol=1e-6)
        assert loaded.card["adapter"]["LoRA"]["rank"] == 2
    for path in (tmp_path / "peft", tmp_path / "peft" / "adapter_model.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"holds adapters; load their base with them: facelab\.load\(BASE, ada"
        ):
            facelab.load(path)


@pytest.mark.parametrize("words", [[], ["--peft"]])
def test_adapters_with_moving_statistics_are_exported_nowhere(
    adapt: Callable[..., Path], tmp_path: Path, words: list[str]
) -> None:
    moving = adapt(tmp_path / "m", "adapter={LoRA: {rank: 2, moving_statistics: true}}", "data.quality=null")
    with pytest.raises(CheckpointError, match="would not bring the network back"):
        run("export-adapter", str(moving), "--out", str(tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_exported_and_saved_models_load(trained_run: Path, photos: list[Path], tmp_path: Path, name: str) -> None:
    expected = facelab.load(trained_run)
    assert "is a model: 32x32 BGR" in run("export", str(trained_run), "--out", str(tmp_path / "a" / name))
    expected.save(tmp_path / "b" / name)
    for folder in "ab":
        assert (facelab.load(tmp_path / folder / name).embed(photos) == expected.embed(photos)).all()
    with pytest.raises(DataError, match="exists already"):
        expected.save(tmp_path / "b" / name)


def test_models_load_by_the_files_in_their_folder(trained_run: Path, photos: list[Path], tmp_path: Path) -> None:
    """What a user may name: the file in a checkpoint, in a model folder, or that file alone elsewhere."""
    expected = facelab.load(trained_run).embed(photos)
    facelab.load(trained_run).save(tmp_path / "model")
    (tmp_path / "alone.safetensors").write_bytes((tmp_path / "model" / "model.safetensors").read_bytes())
    for path in (
        find_checkpoint(trained_run) / "model.safetensors",
        tmp_path / "model" / "model.json",
        tmp_path / "alone.safetensors",
    ):
        assert (facelab.load(path).embed(photos) == expected).all()


@pytest.mark.parametrize("name", ["m.onnx", "m.pt", "m.PTH"])
def test_a_model_is_written_in_no_other_format(trained_run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a model is written as a folder or as one \.safetensors file"):
        run("export", str(trained_run), "--out", str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_answered_with_what_would_work(lora: Path, tmp_path: Path) -> None:
    run("export-adapter", str(lora), "--out", str(tmp_path / "a.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"it holds adapters; load their base with them: facelab\.load\(BASE, ada"
    ):
        facelab.load(tmp_path / "a.safetensors")
    (tmp_path / "b.pt").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match="is no model of facelab; make one of it: facelab import FILE --as"):
        facelab.load(tmp_path / "b.pt")
