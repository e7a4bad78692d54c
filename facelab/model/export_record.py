"""The record that an exported model carries: everything that a stranger must know to use it without facelab."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facelab.config import shown
from facelab.errors import CheckpointError
from facelab.inputs import LARGEST_SIDE, ColourOrder, InputSpec
from facelab.outside.json import parse_json
from facelab.quality.card import ScorerCard
from facelab.weights.calibration import Calibration

RECORD_FORMAT = 1
RECORD_KEY = "facelab"
"""The record's name in ``metadata_props`` of ONNX, ``rt_info`` of OpenVINO and extra files of TorchScript."""

ExportPrecision = Literal["fp32", "fp16", "int8"]
Preprocessing = Literal["outside", "inside"]
LARGEST_EMBEDDING = 1 << 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class TensorNote(_Part):
    """One input or output of the graph.

    Attributes:
        name: Its name.
        dtype: Such as ``float32``.
        shape: Axes; ``batch`` is any number of images.
        meaning: A sentence.
    """

    name: str
    dtype: str
    shape: list[int | str]
    meaning: str


class FaceInput(_Part):
    """What the network itself sees, of aligned faces with pixels 0..255: ``(pixel - mean) / std``.

    Attributes:
        height: Rows that the network sees.
        width: Columns.
        colour: Order of the channels that the network takes.
        mean: Subtracted from each pixel.
        std: Divides the result.
        face_height: Rows of the aligned face, of which the network sees the upper ``height``.
        value_range: What the values are then, lowest and highest.
    """

    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    colour: ColourOrder
    mean: float
    std: float = Field(gt=0)
    face_height: int = Field(ge=1, le=LARGEST_SIDE)
    value_range: list[float] = []

    @classmethod
    def of(cls, spec: InputSpec) -> "FaceInput":
        """What a network's input says."""
        return cls(
            height=spec.height,
            width=spec.width,
            colour=spec.colour,
            mean=float(spec.mean),
            std=float(spec.std),
            face_height=spec.aligned[0],
            value_range=[(0 - spec.mean) / spec.std, (255 - spec.mean) / spec.std],
        )

    def spec(self) -> InputSpec:
        """The same as our own networks say it.

        Raises:
            ConfigError: If it cannot be.
        """
        cut = None if self.face_height == self.height else self.face_height
        return InputSpec(self.height, self.width, self.colour, self.mean, self.std, cut)


class QualityInput(_Part):
    """Whose quality scores weigh the experts of an adapted model.

    Attributes:
        card: Name, version, range and direction of the scores.
        spec: The scorer as ``{name: options}`` where that is known and needs no file.
        inside: Whether the graph scores the images itself; else ``quality`` is its second input.
    """

    card: ScorerCard | None
    spec: dict[str, dict[str, Any] | None] | None = None
    inside: bool = False


class ExportRecord(_Part):
    """What an exported model says of itself.

    Attributes:
        format: Of this record.
        facelab: Version that wrote it.
        model: Name of the model.
        backbone: Registered name of its network.
        precision: Of its weights and products; inputs and outputs stay as ``inputs`` and ``outputs`` say.
        preprocessing: ``inside`` if the graph takes stored pixels, uint8 RGB (n, h, w, 3); ``outside`` if it takes what
            ``face`` describes, (n, 3, height, width).
        flip: Whether the graph adds the embedding of the mirrored face before the norm is taken.
        face: What the network sees.
        inputs: Of the graph.
        outputs: Of the graph.
        embedding_size: D.
        alignment: Where the five landmarks of an aligned face lie.
        adapter: Adapters as ``{name: options}``, or None.
        gate: Their gate likewise, or None.
        quality: Whose quality scores the gate takes, or None without a gate.
        parameters: Learned numbers of the model that was exported.
        macs: Multiply-accumulates for one face, if they could be counted.
        source: Hash of the weights, and what is known of their training.
        licence: As the model says it, or None.
        citation: BibTeX of the methods, and what the model itself asks to cite.
        calibration: Thresholds and probabilities of its cosines, if the model has any that hold for this file.
        made_with: Versions of the packages that wrote the file.
    """

    format: Literal[1] = 1
    facelab: str
    model: str
    backbone: str
    precision: ExportPrecision
    preprocessing: Preprocessing
    flip: bool
    face: FaceInput
    inputs: list[TensorNote]
    outputs: list[TensorNote]
    embedding_size: int = Field(ge=1, le=LARGEST_EMBEDDING)
    alignment: dict[str, Any] = {}
    adapter: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    quality: QualityInput | None = None
    parameters: int = Field(default=0, ge=0)
    macs: int | None = Field(default=None, ge=0)
    source: dict[str, Any] = {}
    licence: str | None = None
    citation: list[str] = []
    calibration: Calibration | None = None
    made_with: dict[str, str] = {}

    @property
    def takes_quality(self) -> bool:
        """Whether the graph has a second input for quality scores."""
        return self.quality is not None and not self.quality.inside

    def text(self) -> str:
        """JSON, as files carry it."""
        return self.model_dump_json(indent=1)


def read_record(text: str, where: str) -> ExportRecord:
    """The record of a file that may come from anybody.

    Args:
        text: JSON.
        where: Names the file in messages.

    Raises:
        CheckpointError: If it is no record, or one of a newer format.
    """
    tree = parse_json(text, where, "the record of an exported model", error=CheckpointError)
    known = tree.get("format") if isinstance(tree, dict) else None
    if known != RECORD_FORMAT:
        raise CheckpointError(
            f"'{where}' has a record of format {shown(known)}; this facelab reads format {RECORD_FORMAT}."
        )
    try:
        return ExportRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"the record of '{where}' cannot be used: '{place}': {first['msg']}.") from None
