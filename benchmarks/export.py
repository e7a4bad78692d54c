"""How fast are exported models? PyTorch in fp32 and bf16 against onnxruntime in fp32 and int8, on faces in memory.

Each arm embeds the same stored pixels by `facelab`'s one forward pass (`Forward`), with all cores; arms take turns, so
that whatever else the machine does meets all of them. Ratios are to PyTorch in fp32 of the same round, their medians
are shown, with the least cosine of an arm's embeddings to those of PyTorch in fp32.

    python benchmarks/export.py --out export.json
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from machine import cores, machine
from torch import Tensor

from facelab.backbone.base import BACKBONES
from facelab.catalogue import resolve
from facelab.data.synthetic.source import SyntheticFaces
from facelab.export.export import ExportOptions, export_model
from facelab.model.face_model import FaceModel, load_model
from facelab.test_protocol.extraction.forward import Forward
from facelab.weights.card import model_card

Arm = Callable[[Tensor], Tensor]
CPU = torch.device("cpu")
BATCH = 64


def trained_looking(name: str) -> FaceModel:
    """A model of a catalogue's backbone whose BatchNorm has seen faces; the others of its numbers are as they start."""
    torch.manual_seed(0)
    registered, options = resolve(BACKBONES, name)
    network = BACKBONES.build(registered, options)
    with torch.no_grad():
        network.train()(torch.rand(32, 3, *network.input_spec.size) * 2 - 1)
    return FaceModel(network, name, model_card(registered, options, network), CPU)


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Backbones of the catalogue, or folders.")] = None,
    seconds: Annotated[float, typer.Option(help="For each model, without its exports.")] = 20.0,
    out: Annotated[Path | None, typer.Option(help="JSON with all of it.")] = None,
) -> None:
    """Compare the speed of exported models with that of PyTorch."""
    torch.set_num_threads(cores())
    found = {}
    for name in models or ["MobileFaceNet", "r18"]:
        model = load_model(name, device="cpu") if Path(name).exists() else trained_looking(name)
        found[Path(name).name] = compared(model, seconds)
        for arm, values in found[Path(name).name].items():
            said = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            print(f"{Path(name).name:>16} {arm:<18} {said}", flush=True)
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), "batch": BATCH, "models": found}, indent=1) + "\n")


def compared(model: FaceModel, seconds: float) -> dict[str, dict[str, float]]:
    """Faces a second, ratio and least cosine of each arm."""
    height, width = model.input_spec.aligned
    drawn = SyntheticFaces(BATCH // 4, 4, size=max(height, width), split="test")
    faces = np.stack([drawn.read(row)[:height, :width] for row in range(BATCH)])
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arms: dict[str, Arm] = {
            "torch fp32": stack.enter_context(Forward(model.network, CPU, "fp32", True)),
            "torch bf16": stack.enter_context(Forward(model.network, CPU, "bf16", True)),
        }
        for precision in ("fp32", "int8"):
            file = Path(folder) / f"{precision}.onnx"
            exported = export_model(model, file, ExportOptions(precision=precision, least_cosine=-1.0))
            loaded = load_model(exported.path)
            arms[f"onnxruntime {precision}"] = stack.enter_context(Forward(loaded.network, CPU, "fp32", True))
        return timed(arms, pixels, seconds)


def timed(arms: dict[str, Arm], pixels: Tensor, seconds: float) -> dict[str, dict[str, float]]:
    """Rounds of all arms in turn, the first of which is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in arms}
    embeddings = {name: torch.nn.functional.normalize(arm(pixels).double()) for name, arm in arms.items()}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates["torch fp32"]) < 3:
        for name, arm in arms.items():
            start = time.perf_counter()
            arm(pixels)
            rates[name].append(len(pixels) / (time.perf_counter() - start))
    plain = np.array(rates["torch fp32"])
    return {
        name: {
            "faces a second": float(np.median(rates[name])),
            "ratio": float(np.median(np.array(rates[name]) / plain)),
            "least cosine": float((embeddings[name] * embeddings["torch fp32"]).sum(dim=1).min()),
        }
        for name in arms
    }


if __name__ == "__main__":
    typer.run(main)
