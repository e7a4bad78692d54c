"""A trained model that knows its input: ``facelab.load(RUN).embed(["a.jpg", "b.jpg"])``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from facelab.catalogue import Spec
from facelab.config import shown
from facelab.errors import ConfigError, one_of
from facelab.inputs import InputSpec
from facelab.model.given_images import GivenImages
from facelab.model.stored_model import model_from_card, read_backbone, read_stored_model
from facelab.test_protocol.extraction.extraction import embedded_blocks
from facelab.test_protocol.extraction.extraction_settings import ExtractionSettings
from facelab.test_protocol.extraction.forward import Forward
from facelab.weights.calibration import KEY as CALIBRATION
from facelab.weights.calibration import Calibration, calibration_of
from facelab.weights.card import adapter_card
from facelab.weights.model_folder import write_model

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from facelab.backbone.base import Backbone
    from facelab.data.detection.base import Detector
    from facelab.model.given_quality import GivenScores


Image = Union[str, Path, NDArray[np.uint8], "PILImage"]

DEVICES = ("cpu", "cuda")
ONNX = ".onnx"


class FaceModel:
    """A network with everything that is needed to feed it correctly.

    Args:
        network: The network, in evaluation mode.
        name: What messages and tables call it.
        card: The description that came with its checkpoint.
        device: Where it runs.
        source: Where its weights came from, a checkpoint's folder or a file.
        calibration: Thresholds and probabilities of its cosines (`facelab calibrate`), or None.
    """

    def __init__(
        self,
        network: "Backbone",
        name: str,
        card: Mapping[str, Any],
        device: torch.device,
        source: Path | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()
        self.name = name
        self.card = card
        self.device = device
        self.source = source
        self.calibration = calibration

    @property
    def input_spec(self) -> InputSpec:
        """Size, colour order and value range of the network's input. `embed` takes RGB and obeys it."""
        return self.network.input_spec

    @property
    def feat_dim(self) -> int:
        """Length of an embedding."""
        return self.network.embedding_dim

    def embed(
        self,
        images: Image | Tensor | Sequence[Image],
        *,
        flip: bool = False,
        resize: bool = False,
        any_photo: bool = False,
        unit: bool = True,
        batch_size: int = 64,
        quality: "GivenScores | None" = None,
        detect: "bool | Spec | Detector" = False,
        on_face: Callable[[str], None] | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings of aligned face images, or of photos.

        Args:
            images: Paths, RGB uint8 arrays (H, W, 3), images of PIL, an array (N, H, W, 3), or a uint8 tensor
                (N, 3, H, W); one of them or a sequence.
            flip: Add the embedding of the mirrored image (the sum is what most published tables use).
            resize: Resize aligned faces of another size; without it they are refused, because a face that is not
                aligned to the size of the network gives poor embeddings without any warning.
            any_photo: With ``resize``, take images too that cannot be aligned faces by their shape or size.
            unit: Scale embeddings to norm 1; without it the norm, a sign of quality for many heads, is kept.
            batch_size: Images in a forward pass, from 1.
            quality: For networks that take quality scores: one for each image, the path of a table, which knows images
                by the longest end of their paths, or a scorer as ``{"Sharpness": {}}``. By default the scorer that the
                adapters were trained with, where they were trained with one and not with a table.
            detect: Look for the largest face in each image that has another size than the network takes, and align it;
                images of that size are aligned crops and stay as they are. True means the detector ``yunet``; or a
                detector of `facelab.data.detection.base.DETECTORS`, or how a configuration names one.
            on_face: Told in one line of each face that was found; from several threads.

        Returns:
            float32, (N, D).

        Raises:
            ConfigError: If the network takes quality scores and there are none, or those of another scorer than its
                gate was calibrated on; if it takes none and there are some; if ``batch_size`` is less than 1,
                ``any_photo`` comes without ``resize``, ``resize`` with ``detect``, or the detector is unknown or lacks
                a package.
            DataError: If an image cannot be read, has another size, or its colour order or range cannot be known; if
                there are more or fewer scores than images, or one is missing or outside of its scorer's range; if an
                embedding is not finite; if no face is found in a photo.
        """
        from facelab.model.given_quality import scores_of_given
        from facelab.model.photo_faces import USUAL, PhotoFaces

        faces = None if detect is False else PhotoFaces(USUAL if detect is True else detect, self.input_spec, on_face)
        given = GivenImages(images, self.input_spec, self.name, resize=resize, any_photo=any_photo, faces=faces)
        readers = 1 if given.paths is None else 0  # an image of PIL may be given twice, and decodes when it is read
        how = ExtractionSettings(self.device, batch_size, flip, workers=readers)
        base = network_of((self.card.get("scorer") or {}).get("base"), self.device)
        scores = scores_of_given(self.network, self.card, quality, given, base)
        if not len(given):
            return np.zeros((0, self.feat_dim), np.float32)
        with Forward(self.network, how.device, how.precision, how.channels_last) as forward:
            (block,) = embedded_blocks(forward, given, [range(len(given))], how, scores)
        # Added as they come, as InsightFace's verification does: the longer one counts more.
        embeddings = block.values if block.flipped is None else block.values + block.flipped
        if unit:
            embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return embeddings

    def similarity(self, first: Image, second: Image, **options: Any) -> float:
        """Cosine similarity of two faces, -1..1. Options as in `embed`, but for ``unit``."""
        left, right = self.embed([first, second], **(options | {"unit": True}))
        return float(np.clip(left @ right, -1.0, 1.0))

    def probability(self, scores: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """Probability that two images show one person, from their cosine; see `Calibration.probability`.

        Args:
            scores: Cosines, of any shape.
            prior: Share of same pairs among all that are compared, in (0, 1).

        Raises:
            ConfigError: If the model is not calibrated, or ``prior`` is out of range.
        """
        return self.calibrated().probability(scores, prior)

    def calibrated(self) -> Calibration:
        """Its calibration.

        Raises:
            ConfigError: If there is none; the message says how to get one.
        """
        if self.calibration is None:
            raise ConfigError(
                f"'{self.name}' has no thresholds and no probabilities yet; measure them on pairs: facelab calibrate "
                f"{self.source or 'RUN'} LFW.root=lfw112.tar LFW.pairs=pairs.txt."
            )
        return self.calibration

    def save(self, path: str | Path) -> Path:
        """Write the model alone, as a folder or as one file ending in ``.safetensors``; `facelab.load` takes both.

        Raises:
            ConfigError: If it is an exported model, which is a file already.
            DataError: If there is something already, or it cannot be written.
        """
        if self.source is not None and is_exported(self.source):
            raise ConfigError(f"'{self.name}' is an exported model, which is a file already; copy '{self.source}'.")
        return write_model(Path(path), self.network.state_dict(), self.card)


def network_of(folder: str | None, device: torch.device) -> "Callable[[], nn.Module] | None":
    """Opens the network of a trained model when it is called; None without a folder."""
    return None if folder is None else lambda: load_model(folder, device=device).network


def load_model(
    source: str | Path,
    *,
    checkpoint: str = "last",
    adapter: str | Path | None = None,
    device: str | torch.device = "auto",
    name: str | None = None,
    calibrated: bool = True,
) -> FaceModel:
    """Load a trained model.

    Args:
        source: Folder of a run, of one checkpoint or of a model, or a file of a model; also an ``.onnx`` file of
            ``facelab export``, which onnxruntime runs on the CPU.
        checkpoint: ``last``, ``best`` or ``step-<update>``, where ``source`` is a run.
        adapter: File of adapters that were trained on this model (``facelab export-adapter``).
        device: ``auto``, ``cpu``, ``cuda`` …
        name: What to call it; the folder's name by default.
        calibrated: Whether to read its calibration; without, one that is damaged or foreign is no obstacle.

    Raises:
        CheckpointError: If there is no complete, unharmed checkpoint, the adapters belong to another model, or the
            calibration to other weights.
    """
    if is_exported(Path(source)):
        return _load_exported(Path(source), adapter, device, name)
    card, weights, place = read_stored_model(Path(source), checkpoint)
    if adapter is not None or not calibrated:  # adapters change the cosines
        card.pop(CALIBRATION, None)
    network = model_from_card(card, weights, str(place))
    calibration = calibration_of(card, network.state_dict(), network.input_spec.describe(), str(place))
    if adapter is not None:
        from facelab.adapter.files import load_adapter

        network, stored = load_adapter(Path(adapter), network)
        card |= adapter_card(network, stored.adapter, stored.gate) | (
            {"scorer": stored.scorer} if stored.scorer else {}
        )
    return FaceModel(network, name or Path(source).name, card, pick_device(device), place, calibration)


def is_exported(source: Path) -> bool:
    """Whether a path is meant as an exported model."""
    return source.suffix.lower() == ONNX and not source.is_dir()


def _load_exported(source: Path, adapter: str | Path | None, device: str | torch.device, name: str | None) -> FaceModel:
    """The model in an ONNX file."""
    from facelab.model.onnx_file import read_onnx

    if adapter is not None:
        raise ConfigError(f"'{source}' is an exported model, which takes no adapters; export the adapted one.")
    if device != "auto" and pick_device(device).type != "cpu":
        raise ConfigError(f"'{source}' is an ONNX file, which is run on the CPU here; leave the device out.")
    network = read_onnx(source)
    quality = network.record.quality
    scorer = quality.card if quality is not None and network.needs_quality else None
    card = {} if quality is None or scorer is None else {"scorer": {"card": scorer.model_dump(), "spec": quality.spec}}
    calibration = network.record.calibration
    if calibration is not None:  # mirrored faces are a matter of the graph, if at all
        calibration = calibration.model_copy(update={"flip": False})
    return FaceModel(network, name or source.name, card, torch.device("cpu"), source, calibration)


def load_backbone(
    spec: Spec, weights: Path, *, device: str | torch.device = "auto", name: str | None = None
) -> FaceModel:
    """A backbone of the registry or the catalogue with the weights of a safetensors file.

    Raises:
        CheckpointError: If the weights do not fit.
        ConfigError: If the backbone is unknown.
    """
    network, card = read_backbone(spec, weights)
    shown = name or (spec if isinstance(spec, str) else next(iter(spec)))
    return FaceModel(network, shown, card, pick_device(device), weights)


def pick_device(device: str | torch.device) -> torch.device:
    """``auto`` is the GPU of this process where there is one, else the CPU.

    Raises:
        ConfigError: If there is no such device, or this machine has none.
    """
    if device == "auto":
        from facelab.distributed import local_rank

        return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"the device is {shown(device)}, but must be one of: auto, {', '.join(DEVICES)}.") from None
    one_of("the device", chosen.type, ("auto", *DEVICES))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= found:
        raise ConfigError(
            f"the device is '{device}', but torch {torch.__version__} finds {found or 'no'} CUDA GPU on this machine; "
            "choose auto or cpu, or install a driver and a torch for CUDA."
        )
    return chosen
