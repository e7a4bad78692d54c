"""The record of a model that is to be exported, from its description and its network."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import torch

from facelab.adapter.base import ADAPTERS
from facelab.backbone.base import BACKBONES
from facelab.cost.network_cost import network_cost
from facelab.data.alignment.alignment import ORDER, template
from facelab.model.export_record import (
    ExportPrecision,
    ExportRecord,
    FaceInput,
    Preprocessing,
    QualityInput,
    TensorNote,
)
from facelab.model.exported_network import EMBEDDING, IMAGE, NORM, QUALITY
from facelab.model.face_model import FaceModel
from facelab.quality.card import ScorerCard
from facelab.version import __version__
from facelab.weights.state_hash import state_hash

BATCH = "batch"
LEAST_TEMPLATE = 16
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")
TRAINING = ("update", "epoch", "imported", "merged", "plugins")  # fields of a model's description that tell its origin


def record_of(
    model: FaceModel,
    *,
    precision: ExportPrecision,
    preprocessing: Preprocessing,
    flip: bool,
    quality: QualityInput | None,
) -> ExportRecord:
    """What an exported model will say of itself.

    Args:
        model: What is exported.
        precision: Of its weights and products.
        preprocessing: Whether it takes stored pixels.
        flip: Whether mirrored faces are added.
        quality: Whose scores its gate takes, and whether the graph makes them.
    """
    card, network = model.card, model.network
    face = FaceInput.of(model.input_spec)
    cost = network_cost(network, model.input_spec.size, with_quality=network.needs_quality)
    takes = None if quality is None or quality.inside else quality
    backbone = str((card.get("backbone") or {}).get("name", type(network).__name__))
    return ExportRecord(
        facelab=__version__,
        model=model.name,
        backbone=backbone,
        precision=precision,
        preprocessing=preprocessing,
        flip=flip,
        face=face,
        inputs=[_image_note(face, preprocessing), *([] if takes is None else [_quality_note(takes.card)])],
        outputs=_output_notes(model.feat_dim, flip),
        embedding_size=model.feat_dim,
        alignment=_alignment(face),
        adapter=card.get("adapter"),
        gate=card.get("gate"),
        quality=quality,
        parameters=cost.parameters,
        macs=cost.macs,
        source={
            "weights_hash": state_hash(network.state_dict()),
            **{name: _without_folders(card[name]) for name in TRAINING if card.get(name)},
        },
        licence=card.get("licence"),
        citation=_citations(backbone, card),
        calibration=model.calibration if keeps_calibration(model, precision, flip) else None,
        made_with={"python": platform.python_version(), "torch": torch.__version__, **_versions()},
    )


def keeps_calibration(model: FaceModel, precision: ExportPrecision, flip: bool) -> bool:
    """Whether thresholds and probabilities hold for an export: int8 moves cosines, and so do mirrored faces."""
    return model.calibration is not None and precision != "int8" and model.calibration.flip == flip


def _without_folders(told: Any) -> Any:
    """Of paths, the last name: folders of the machine that trained a model are nobody's business."""
    if isinstance(told, dict):
        return {name: _without_folders(value) for name, value in told.items()}
    return PurePath(told).name if isinstance(told, str) and "://" not in told else told


def _image_note(face: FaceInput, preprocessing: Preprocessing) -> TensorNote:
    if preprocessing == "inside":
        return TensorNote(
            name=IMAGE,
            dtype="uint8",
            shape=[BATCH, face.face_height, face.width, 3],
            meaning="aligned faces as they are stored, RGB, 0..255; another size is refused, so resize before",
        )
    cut = "" if face.face_height == face.height else f" of {face.face_height} rows, the upper {face.height} of them"
    return TensorNote(
        name=IMAGE,
        dtype="float32",
        shape=[BATCH, 3, face.height, face.width],
        meaning=f"aligned faces{cut}, channels in the order {face.colour}: (pixel - {face.mean:g}) / {face.std:g} of "
        "pixels 0..255; another size is refused, so resize before",
    )


def _quality_note(card: ScorerCard | None) -> TensorNote:
    who = "the scorer that the gate was calibrated on" if card is None else card.identify()
    meaning = f"quality score of each aligned face by {who}; it weighs the experts of the network"
    return TensorNote(name=QUALITY, dtype="float32", shape=[BATCH], meaning=meaning)


def _output_notes(length: int, flip: bool) -> list[TensorNote]:
    of = "the sum of the embeddings of a face and its mirror image" if flip else "the embedding of a face"
    return [
        TensorNote(
            name=EMBEDDING,
            dtype="float32",
            shape=[BATCH, length],
            meaning=f"{of}, divided by its norm; two faces are compared by the sum of products (cosine, -1..1)",
        ),
        TensorNote(
            name=NORM,
            dtype="float32",
            shape=[BATCH],
            meaning=f"norm that {of} had; a hint of quality for many networks",
        ),
    ]


def _alignment(face: FaceInput) -> dict[str, Any]:
    """Where landmarks lie in faces as `facelab data align` makes them; nothing for faces that are no squares."""
    if face.face_height != face.width or face.width < LEAST_TEMPLATE:
        return {}
    return {
        "template": "ArcFace",
        "landmarks": template(face.width).round(4).tolist(),
        "order": ORDER,
        "meaning": f"(x, y) in the aligned face of {face.width}x{face.width} pixels, by a similarity transform of the "
        "photo; pixel centres are whole numbers. It is what facelab data align makes; whether the model was trained on "
        "such faces, its trainer knows.",
    }


def _citations(backbone: str, card: Mapping[str, Any]) -> list[str]:
    """BibTeX of the network and its adapters, behind what the model itself wants cited."""
    own = card.get("citation") or []
    found = [BACKBONES.get(backbone).citation] if backbone in BACKBONES else []
    found += [ADAPTERS.get(name).citation for name in card.get("adapter") or () if name in ADAPTERS]
    return [*([own] if isinstance(own, str) else own), *(one.bibtex() for one in found if one is not None)]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
