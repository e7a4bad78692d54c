"""The golden networks of every project, saved as that project saves them, give their embeddings once imported."""

import gc
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import facelab
from facelab.adapter.base import AdaptedBackbone
from facelab.backbone.names.import_names import import_backbone, unused_names
from facelab.cli import main as cli
from facelab.weights.published_source import published_network

ADDRESSES = {
    "adaface__ir_18": "adaface:ir_18",
    "adaface__ir_50": "adaface:ir_50",
    "adaface__ir_101": "adaface:ir_101",
    "adaface__ir_se_50": "adaface:ir_se_50",
    "arcface_torch__mbf": "insightface:mbf",
    "arcface_torch__mbf_large": "insightface:mbf_large",
    "arcface_torch__r18": "insightface:r18",
    "arcface_torch__r34": "insightface:r34",
    "arcface_torch__r50": "insightface:r50",
    "arcface_torch__r100": "insightface:r100",
    "arcface_torch__r200": "insightface:r200",
    "arcface_torch__vit_t": "insightface:vit_t",
    "arcface_torch__vit_s": "insightface:vit_s",
    "arcface_torch__vit_b": "insightface:vit_b",
    "facexzoo__AttentionNet56": "facexzoo:AttentionNet-56",
    "facexzoo__AttentionNet92": "facexzoo:AttentionNet-92",
    "facexzoo__EfficientNet_B0": "facexzoo:EfficientNet-B0",
    "facexzoo__GhostNet": "facexzoo:GhostNet",
    "facexzoo__HRNet": "facexzoo:HRNet",
    "facexzoo__LightCNN29": "facexzoo:LightCNN-29",
    "facexzoo__MobileFaceNet": "facexzoo:MobileFaceNet",
    "facexzoo__ReXNet_1.0": "facexzoo:ReXNet_1.0",
    "facexzoo__RepVGG": "facexzoo:RepVGG",
    "facexzoo__ResNeSt50": "facexzoo:ResNeSt50",
    "facexzoo__ResNet50_ir": "facexzoo:ResNet50_ir",
    "facexzoo__ResNet152_ir_se": "facexzoo:ResNet152_ir_se",
    "facexzoo__SwinTransformer": "facexzoo:SwinTransformer",
    "facexzoo__TF-NAS-A": "facexzoo:TF-NAS-A",
    "magface__iresnet100": "magface:iresnet100",
    "petalface__swin_256new": "petalface:swin_256new",
    "petalface__swin_256new_lora8": "petalface:swin_256new",
    "petalface__swin_256new_iqa_lora8": "petalface:swin_256new_iqa",
    "petalface__vit_b": "petalface:vit_b",
    "petalface__vit_b_lora8": "petalface:vit_b",
    "petalface__vit_b_iqa_lora8": "petalface:vit_b_iqa",
    "transface__vit_s_dp005_mask_0": "transface:vit_s_dp005_mask_0",
    "transface__vit_b_dp005_mask_005": "transface:vit_b_dp005_mask_005",
    "transface__vit_l_dp005_mask_005": "transface:vit_l_dp005_mask_005",
}
INPUTS = {  # colour order, mean and std as each project documents its input
    "adaface": ("BGR", 127.5, 127.5),
    "facexzoo": ("BGR", 127.5, 128),
    "insightface": ("RGB", 127.5, 127.5),
    "magface": ("BGR", 0, 255),
    "petalface": ("RGB", 127.5, 127.5),
    "transface": ("RGB", 127.5, 127.5),
}
SMALL_COPIES = Path(__file__).parents[1] / "golden" / "backbones"
SMALL = ("adaface__ir_18", "arcface_torch__mbf", "facexzoo__LightCNN29", "facexzoo__MobileFaceNet")

Read = Callable[[Path, str], Any]
Save = Callable[[dict[str, Any], Path], None]


def saved(project: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """A state dict inside what the training program of ``project`` saves."""
    rows = torch.zeros(4, 3)
    if project == "facexzoo":
        wrapped = {f"backbone.{name}": tensor for name, tensor in state.items()}
        return {"state_dict": {**wrapped, "head.weight": rows}, "epoch": 17, "batch_id": 0}
    if project == "magface":
        wrapped = {f"module.features.{name}": tensor for name, tensor in state.items()}
        return {"epoch": 25, "arch": "iresnet100", "state_dict": {**wrapped, "module.fc.weight": rows}, "best_acc1": 0}
    if project == "adaface":
        wrapped = {f"model.{name}": tensor for name, tensor in state.items()}
        head = {"head.kernel": rows, "head.t": rows[0], "head.batch_mean": rows[0], "head.batch_std": rows[0]}
        return {"state_dict": {**wrapped, **head}, "pytorch-lightning_version": "1.8.6", "epoch": 25}
    if project == "petalface":
        return dict(state)
    return {"epoch": 19, "state_dict_backbone": state, "state_dict_softmax_fc": {"weight": rows}}


def import_and_compare(golden: Any, name: str, folder: Path, save_lightning: Save) -> None:
    project, address = name.split("__")[0], ADDRESSES[name]
    content = saved(project, golden.weights())
    file = folder / "released.pt"
    if project == "adaface":
        save_lightning(content, file)
    else:
        torch.save(content, file)
    del content
    result = CliRunner().invoke(cli.app, ["import", str(file), "--as", address, "--out", str(folder / "model")])
    assert result.exit_code == 0, result.exception or result.output
    file.unlink()
    model = facelab.load(folder / "model", device="cpu")
    spec = model.input_spec
    assert (spec.colour, spec.mean, spec.std) == INPUTS[address.partition(":")[0]]
    assert spec.size == (golden.manifest["input_size"],) * 2
    assert model.card["imported"] == {"as": address, "file": str(file)}
    network = model.network.double()
    with torch.inference_mode():
        if isinstance(network, AdaptedBackbone):
            alpha = golden.expected.get("alpha")
            embedding = network.with_gate(golden.images(), None if alpha is None else alpha.flatten().double())
        else:
            embedding = network(golden.images())
    if project == "adaface":
        embedding = embedding / embedding.norm(dim=1, keepdim=True)
    assert golden.relative_error(embedding, golden.expected["out0"]) < golden.tolerance


@pytest.mark.parametrize("name", SMALL)
def test_a_released_file_gives_the_golden_embedding(
    name: str, golden_model: Read, tmp_path: Path, save_lightning: Save
) -> None:
    import_and_compare(golden_model(SMALL_COPIES, name), name, tmp_path, save_lightning)


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", ADDRESSES)
def test_a_released_file_gives_the_embedding_of_the_golden_folder(
    name: str, golden_root: Path, golden_model: Read, tmp_path: Path, save_lightning: Save
) -> None:
    import_and_compare(golden_model(golden_root / "backbones", name), name, tmp_path, save_lightning)
    for path in (tmp_path / "model").iterdir():
        path.unlink()  # up to a gigabyte each
    gc.collect()


@pytest.mark.golden
def test_every_golden_network_has_an_address(golden_root: Path) -> None:
    assert {path.stem for path in (golden_root / "backbones").glob("*.json")} == ADDRESSES.keys()


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name in ADDRESSES if "lora" not in name])
def test_names_and_shapes_of_a_released_file_fit(name: str, golden_root: Path) -> None:
    """All names are known, no parameter is left over, and colour, range and size come with the name."""
    manifest = json.loads((golden_root / "backbones" / f"{name}.json").read_text())
    source, spec = published_network(ADDRESSES[name])
    with torch.device("meta"):
        original = {key: torch.empty(shape) for key, shape, _ in manifest["state_dict"]}
        content = saved(name.split("__")[0], original)
        state, head = source.separate(content.get("state_dict", content.get("state_dict_backbone", content)), name)
        network, card = import_backbone(spec, state, name)
    assert len(head) == {"facexzoo": 1, "magface": 1, "adaface": 4}.get(name.split("__")[0], 0)
    unused = sum(math.prod(original[key].shape) for key in unused_names(network, original))
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["params"] - unused
    size = manifest["input_size"]
    colour, mean, std = INPUTS[ADDRESSES[name].partition(":")[0]]
    assert card["input"] == {"height": size, "width": size, "colour": colour, "mean": mean, "std": std}
