"""The other side of all benchmarks: face recognition as a plain PyTorch loop, the way published programs write it.

- every image is opened with Pillow, mirrored at random, and normalised by torchvision's transforms, in the worker
  processes of a ``DataLoader``;
- the network is ours, with the same weights, made of stock modules alone: `stock_network` puts ``torch.nn.PReLU`` in
  place of our quicker one and switches off the special treatment of depthwise convolutions;
- images and weights are contiguous fp32; the margin is computed on one-hot labels; the optimiser is
  ``torch.optim.SGD`` as it comes; the loss is read with ``.item()`` at every step;
- embeddings are computed under ``torch.no_grad`` and copied to NumPy batch by batch.
"""

import importlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from plain_step import MARGIN, SCALE, stock_network
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import build
from facelab.inputs import InputSpec
from facelab.vision import load_torchvision


class PlainImages(Dataset[tuple[Tensor, int]]):
    """The usual data set: one image at a time, opened with Pillow, mirrored and normalised in the worker.

    Args:
        paths: Files.
        labels: Class of each.
        spec: What the network expects.
        flip: Mirror half of the images.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], spec: InputSpec, *, flip: bool) -> None:
        transforms = importlib.import_module(f"{load_torchvision().__name__}.transforms")
        self.paths = [str(path) for path in paths]
        self.labels = list(labels)
        self.bgr = spec.colour == "BGR"
        normalise = transforms.Normalize([spec.mean / 255] * 3, [spec.std / 255] * 3)
        first = [transforms.RandomHorizontalFlip()] if flip else []
        self.transform = transforms.Compose([*first, transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image ``index`` as a network takes it, float32, (3, H, W), and its class."""
        with Image.open(self.paths[index]) as image:
            pixels = self.transform(image.convert("RGB"))
        return pixels.flip(0) if self.bgr else pixels, self.labels[index]


def plain_loader(images: PlainImages, batch_size: int, workers: int, *, train: bool) -> DataLoader[tuple[Tensor, int]]:
    """Its processes stay alive between epochs, so that their start is not counted."""
    return DataLoader(
        images, batch_size, shuffle=train, num_workers=workers, drop_last=train, persistent_workers=workers > 0
    )


class PlainArcFace(nn.Module):
    """Class rows and ArcFace's margin on one-hot labels, as in most published programs."""

    def __init__(self, num_classes: int, feat_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feat_dim) * 0.01)

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        """Scaled logits with the margin on the target, (B, C)."""
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight))
        # The root has no finite slope at 0, where a cosine is 1.
        sine = (1.0 - cosine.square()).clamp(1e-6, 1.0).sqrt()
        phi = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
        phi = torch.where(cosine > -math.cos(MARGIN), phi, cosine - MARGIN * math.sin(MARGIN))
        one_hot = F.one_hot(label, self.weight.shape[0]).to(cosine.dtype)
        return SCALE * (one_hot * phi + (1.0 - one_hot) * cosine)


class PlainTraining:
    """The loop over one epoch after another.

    Args:
        backbone: Catalogue entry.
        paths: Files.
        labels: Class of each.
        batch_size: Images in a step.
        workers: Processes of the loader.
        lr: Learning rate.
    """

    def __init__(
        self, backbone: str, paths: Sequence[Path], labels: Sequence[int], *, batch_size: int, workers: int, lr: float
    ) -> None:
        self.network = stock_network(build(BACKBONES, backbone))
        self.head = PlainArcFace(max(labels) + 1, self.network.feat_dim)
        images = PlainImages(paths, labels, self.network.input_spec, flip=True)
        self.loader = plain_loader(images, batch_size, workers, train=True)
        parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=5e-4)
        self.losses: list[float] = []

    def epoch(self) -> None:
        """Train on every batch once."""
        self.network.train()
        for image, label in self.loader:
            loss = F.cross_entropy(self.head(self.network(image), label), label)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.losses.append(loss.item())


def plain_embeddings(network: Backbone, loader: DataLoader[tuple[Tensor, int]]) -> NDArray[np.float32]:
    """Embeddings of all images, (N, D)."""
    network.eval()
    with torch.no_grad():
        return np.concatenate([network(image).numpy() for image, _ in loader])
