"""A model as a file for programs without facelab, compared with the model before it gets its name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from facelab.adapter.base import AdaptedBackbone
from facelab.data.base import ImageSet
from facelab.errors import ConfigError, DataError, in_range, one_of
from facelab.export.faces import Faces, open_faces
from facelab.export.graphs import EmbeddingGraph, PreprocessingGraph, prepared_network
from facelab.export.job import Format, Job
from facelab.export.onnx_format import OnnxFormat
from facelab.export.openvino_format import OpenVinoFormat
from facelab.export.parity import Parity, measured_parity
from facelab.export.record import record_of
from facelab.export.torchscript_format import TorchScriptFormat
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.model.export_record import ExportPrecision, ExportRecord, Preprocessing, QualityInput, read_record
from facelab.model.exported_network import ExportedNetwork
from facelab.model.face_model import FaceModel
from facelab.model.scoring import build_scorer
from facelab.weights.temporary import temporary_folder

FORMATS: Mapping[str, type[Format]] = {
    "onnx": OnnxFormat,
    "openvino": OpenVinoFormat,
    "torchscript": TorchScriptFormat,
}
CALIBRATION_FACES, PARITY_FACES = 256, 32
NOTE = ".json"  # behind the file's own name


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: A name in `FORMATS`.
        precision: Of weights and products.
        preprocessing: ``inside`` for a graph that takes stored pixels.
        flip: Whether the embedding of the mirrored face is added.
        least_cosine: What the parity test asks for; None for what is usual at that precision.

    Raises:
        ConfigError: If the format is unknown or cannot hold the precision, or the cosine is out of range.
    """

    format: str = "onnx"
    precision: ExportPrecision = "fp32"
    preprocessing: Preprocessing = "outside"
    flip: bool = False
    least_cosine: float | None = None

    def __post_init__(self) -> None:
        one_of("--to", self.format, list(FORMATS))
        possible = FORMATS[self.format].precisions
        if self.precision not in possible:
            raise ConfigError(f"{self.format} is written with --precision {' or '.join(possible)}; int8 goes to onnx.")
        if self.least_cosine is not None:
            in_range("--least-cosine", self.least_cosine, -1.0, 1.0)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        record: What it says of itself.
        parity: How near it is to its origin.
    """

    path: Path
    record: ExportRecord
    parity: Parity

    @property
    def note(self) -> Path:
        """The JSON beside it."""
        return self.path.with_name(f"{self.path.name}{NOTE}")


def export_model(
    model: FaceModel, out: Path, options: ExportOptions, source: ImageSet | None = None, what: str = "drawn faces"
) -> Exported:
    """Write a model as one file (OpenVINO: two) with its record in it, and as JSON beside it, whole or not at all.

    Args:
        model: Any that `facelab.load` gives, but for exported ones.
        out: The new file.
        options: How.
        source: Aligned faces that int8 is calibrated on and that parity is measured on; None for drawn ones.
        what: What the user calls them.

    Raises:
        ConfigError: If a package is missing, or the model cannot be written so.
        DataError: If there is such a file already, it cannot be written, the faces cannot be read, or the exported
            model embeds them otherwise than the model itself.
    """
    writer = FORMATS[options.format]()
    names = _free_names(out, writer)
    if isinstance(model.network, ExportedNetwork):
        raise ConfigError(f"'{model.name}' is an exported model; export the run that it came from.")
    scorer, quality = _quality(model, options)
    record = record_of(
        model, precision=options.precision, preprocessing=options.preprocessing, flip=options.flip, quality=quality
    )
    faces = open_faces(model, source, what, CALIBRATION_FACES if options.precision == "int8" else PARITY_FACES)
    if scorer is not None:
        faces = _scored(faces, scorer)
    after = EmbeddingGraph(prepared_network(model.network), flip=options.flip, half=options.precision == "fp16")
    before = PreprocessingGraph(model.input_spec, scorer) if options.preprocessing == "inside" else None
    try:
        with temporary_folder(out) as folder:
            made = folder / out.name
            writer.write(Job(after.eval(), before, record, faces), made)
            few = faces.part(slice(0, None, -(-len(faces) // PARITY_FACES)))
            parity = measured_parity(model, writer.open(made), record, few, options.least_cosine)
            parity.require(options.precision)
            note = record.model_dump() | {"file": out.name, "parity": asdict(parity)}
            made.with_name(names[-1]).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
            for name in reversed(names):  # what a reader opens comes last, when all that belongs to it is there
                made.with_name(name).replace(out.with_name(name))
    except OSError as error:
        raise DataError(f"'{out}' cannot be written ({error.strerror or error}).") from None
    return Exported(out, record, parity)


def opened_export(path: Path, form: str, model: FaceModel) -> FaceModel:
    """A file that was just written, in the program that will run it, for protocols.

    Args:
        path: The file.
        form: Its format.
        model: What it was made of; it says how images get their quality scores.
    """
    content = path.read_bytes()
    note = path.with_name(f"{path.name}{NOTE}").read_text(encoding="utf-8")
    digest = hashlib.sha256(content).hexdigest()
    network = ExportedNetwork(FORMATS[form]().open(path), read_record(note, str(path)), form, digest)
    card = model.card if network.needs_quality else {}
    return FaceModel(network, path.name, card, torch.device("cpu"), path)


def _free_names(out: Path, writer: Format) -> list[str]:
    """Names of the files to be written, the one of the user first."""
    if out.suffix.lower() != writer.suffixes[0]:
        raise DataError(f"'{out}': this format is written to a file whose name ends in {writer.suffixes[0]}.")
    names = [out.name, *(f"{out.stem}{suffix}" for suffix in writer.suffixes[1:]), f"{out.name}{NOTE}"]
    for name in names:
        if out.with_name(name).exists():
            raise DataError(f"'{out.with_name(name)}' exists already; choose another name.")
    return names


def _quality(model: FaceModel, options: ExportOptions) -> tuple[PixelScorer | None, QualityInput | None]:
    """The scorer that goes into the graph, if one does, and what the record says of scores; nothing without a gate."""
    network = model.network
    if not isinstance(network, AdaptedBackbone) or network.gate is None:
        return None, None
    scorer = _exportable_scorer(model) if options.preprocessing == "inside" else None
    spec = (model.card.get("scorer") or {}).get("spec")
    # Options that name files of this machine are of no use elsewhere.
    known = {name: given for name, given in (spec or {}).items() if not given}
    return scorer, QualityInput(card=network.quality_scorer, spec=known or None, inside=scorer is not None)


def _exportable_scorer(model: FaceModel) -> PixelScorer | None:
    """The scorer of a model's gate, if it is known and can be part of a graph."""
    spec = (model.card.get("scorer") or {}).get("spec")
    if spec is None or "network" in SCORERS.parameters(next(iter(spec))):
        return None
    scorer = build_scorer(spec, None)
    return scorer if isinstance(scorer, PixelScorer) and scorer.exportable else None


def _scored(faces: Faces, scorer: PixelScorer) -> Faces:
    scores = scorer.score(torch.from_numpy(faces.pixels).permute(0, 3, 1, 2))
    return replace(faces, quality=scores.numpy().astype(np.float32))
