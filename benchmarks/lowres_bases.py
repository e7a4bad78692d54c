"""The networks that `lowres_adaptation` adapts."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.adapter.targets import Kind
from facelab.backbone.base import Backbone, Features
from facelab.inputs import InputSpec
from facelab.model.face_model import load_backbone

EDGEFACE = "edgeface"
CROP = (6.34, 20.05, 100.5)  # left, top and side in an aligned 112x112 face of what dlib's chips show
CHIP, STAGES = 150, (("32", 3), ("64", 3), ("128", 2), ("256", 2))
MEAN = (122.782, 117.001, 104.298)


class Residual(nn.Module):
    """Two convolutions and what went in, reduced by averaging and with channels of zeros where they change the shape.

    Args:
        before: Channels in.
        after: Channels out.
        stride: 2 to reduce.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=2 - stride)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        out = self.conv2(F.relu(self.conv1(maps)))
        short = maps if self.stride == 1 else F.avg_pool2d(maps, 2)
        right, below = short.shape[3] - out.shape[3], short.shape[2] - out.shape[2]
        out = F.pad(out, (0, right, 0, below))
        short = F.pad(short, (0, 0, 0, 0, 0, out.shape[1] - short.shape[1]))
        return F.relu(out + short)


class DlibResNet(Backbone):
    """dlib's face recognition network (King, 2017), a ResNet of 29 layers, in the form of face-api.

    It was trained on about three million photographs of FaceScrub, VGG and others, in another cut of the face, which
    is taken out of the aligned image here. Scales and shifts are part of the convolutions.
    """

    def __init__(self) -> None:
        super().__init__(InputSpec(), 128)
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks: dict[str, nn.Module] = {}
        channels = 32
        for name, count in STAGES:
            if int(name) > 32:
                blocks[f"conv{name}_down"] = Residual(channels, int(name), 2)
            channels = int(name)
            blocks.update({f"conv{name}_{number + 1}": Residual(channels, channels) for number in range(count)})
        blocks["conv256_down_out"] = Residual(256, 256, 2)
        self.blocks = nn.ModuleDict(blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        left, top, side = CROP
        pixel = (torch.arange(CHIP) + 0.5) / CHIP * side
        across, down = (((pixel + start) / 112 * 2 - 1) for start in (left, top))
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=2)
        self.register_buffer("grid", grid[None], persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)

    def features(self, image: Tensor) -> Features:
        """Embedding of normalised images (B, 3, 112, 112)."""
        grid = self.get_buffer("grid").expand(len(image), -1, -1, -1)
        chip = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        chip = (chip * self.input_spec.std + self.input_spec.mean - self.get_buffer("mean")) / 255
        maps = F.max_pool2d(F.relu(self.stem(chip)), 3, 2)
        for block in self.blocks.values():
            maps = block(maps)
        return Features(self.fc(maps.mean(dim=(2, 3))))


ADAPTED: dict[type[nn.Module], tuple[Kind, ...]] = {DlibResNet: ("linear", "conv")}
"""Kinds of layers that adapters change, where these are not the linear ones alone."""


def open_base(base: str, weights: Path) -> Backbone:
    """``edgeface`` or the folder ``model`` of the package face-api, which has dlib's network.

    Args:
        base: Which.
        weights: Those of EdgeFace-XXS.
    """
    if base == EDGEFACE:
        return load_backbone("EdgeFace-XXS", weights, device="cpu").network
    network = DlibResNet()
    network.load_state_dict(folded(read_tensors(Path(base))))
    return network


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors of ``face_recognition_model``, of which most are stored as whole numbers of 0..255 times a scale."""
    data = np.frombuffer((folder / "face_recognition_model.bin").read_bytes(), np.uint8)
    tensors, at = {}, 0
    for group in json.loads((folder / "face_recognition_model-weights_manifest.json").read_text()):
        for entry in group["weights"]:
            stored = entry.get("quantization", {"dtype": entry["dtype"], "scale": 1.0, "min": 0.0})
            form = np.dtype(stored["dtype"])
            end = at + int(np.prod(entry["shape"])) * form.itemsize
            values = data[at:end].view(form).astype(np.float64) * stored["scale"] + stored["min"]
            tensors[entry["name"]] = torch.from_numpy(values.astype(np.float32).reshape(entry["shape"]))
            at = end
    return tensors


def folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of `DlibResNet`: convolutions with the scales and shifts behind them."""
    state = {"fc.weight": tensors["fc"].T.contiguous()}
    for name in (name.removesuffix("/conv/filters") for name in tensors if name.endswith("/conv/filters")):
        scale = tensors[f"{name}/scale/weights"]
        place = "stem" if name == "conv32_down" else f"blocks.{name.replace('/', '.')}"
        state[f"{place}.weight"] = (tensors[f"{name}/conv/filters"] * scale).permute(3, 2, 0, 1).contiguous()
        state[f"{place}.bias"] = tensors[f"{name}/conv/bias"] * scale + tensors[f"{name}/scale/biases"]
    return state
