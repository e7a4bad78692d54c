"""Stored models: the folder or file that somebody names -> a description, weights, and the network of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from facelab.catalogue import Spec
from facelab.errors import CheckpointError
from facelab.inputs import InputSpec
from facelab.outside.file import is_file
from facelab.quality.card import ScorerCard
from facelab.weights.build_limit import build_within
from facelab.weights.card_check import check_card
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.manifest import MANIFEST, verify
from facelab.weights.model_folder import PEFT_FILES, is_model_file, read_model_file
from facelab.weights.snapshot import CARD, MODEL, read_card, read_model
from facelab.weights.state_fit import load_weights

if TYPE_CHECKING:
    from facelab.backbone.base import Backbone


def find_checkpoint(source: str | Path, which: str = "last") -> Path:
    """The checkpoint folder that a run folder or a checkpoint folder means.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(source)
    if (path / "checkpoints").is_dir():
        return CheckpointStore(path / "checkpoints").find(which)
    if (path / "manifest.json").is_file():
        return path
    if (path / PEFT_FILES[0]).is_file():
        raise CheckpointError(
            f"'{source}' holds adapters; load their base with them: facelab.load(BASE, adapter=FOLDER)."
        )
    raise CheckpointError(f"'{source}' is neither a run folder nor a checkpoint folder.")


def is_stored_model(source: Path) -> bool:
    """Whether a path is what `read_stored_model` takes: a folder, or a file that says what its weights are of."""
    return source.is_dir() or (is_file(source) and (_is_part(source) or is_model_file(source)))


def _is_part(file: Path) -> bool:
    """Whether a file is one of those of a checkpoint or model folder, which is meant."""
    return file.name in (MODEL, CARD, MANIFEST) and is_file(file.parent / MANIFEST)


def read_stored_model(source: Path, checkpoint: str = "last") -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Description, weights and place of a stored model; see `load_model` for the arguments.

    Raises:
        CheckpointError: If there is no complete, unharmed checkpoint.
    """
    if is_file(source):
        if not _is_part(source):
            return *read_model_file(source), source
        source = source.parent
    folder = find_checkpoint(source, checkpoint)
    try:
        verify(folder, (CARD, MODEL))
    except CheckpointError as error:
        offer = CheckpointStore(folder.parent).unharmed_instead(folder, "take one by --checkpoint")
        raise CheckpointError(f"{error} {offer}".rstrip()) from None
    return read_card(folder), read_model(folder), folder


def model_from_card(card: Mapping[str, Any], weights: Mapping[str, Tensor], where: str) -> "Backbone":
    """The network that a card describes, with its weights.

    Args:
        card: The description.
        weights: Its tensors by name.
        where: Names both in messages.

    Raises:
        CheckpointError: If the card is incomplete, wrong or of a newer format, or describes no network that has such
            tensors.
        ConfigError: If the backbone, an adapter or one of their options is unknown here; also if it is a plugin's,
            which is not imported because a card says so.
    """
    check_card(card, where)
    _refuse_plugins(card, where)
    network = build_within(lambda: _build(card), weights, where)
    load_weights(network, weights, where)
    return network


def _refuse_plugins(card: Mapping[str, Any], where: str) -> None:
    """Refuse a card that needs what only its plugins register."""
    from facelab.adapter.base import ADAPTERS
    from facelab.adapter.gate import GATES
    from facelab.backbone.base import BACKBONES
    from facelab.plugins import refuse_plugins

    known = card["backbone"]["name"] in BACKBONES
    known &= all(name in ADAPTERS for name in card.get("adapter", ()))
    known &= all(name in GATES for name in card.get("gate") or ())
    if not known:
        refuse_plugins(card.get("plugins", ()), f"the model '{where}'")


def _build(card: Mapping[str, Any]) -> "Backbone":
    from facelab.adapter.files import with_adapters
    from facelab.backbone.base import BACKBONES

    name, options = card["backbone"]["name"], {**card["backbone"]["options"], "feat_dim": card["feat_dim"]}
    network = BACKBONES.build(name, options, input_spec=InputSpec(**card["input"]))
    if "adapter" not in card:
        return network
    adapted = with_adapters(network, card["adapter"], card["gate"], scorer_of_card(card))
    adapted.base_hash = card["base_hash"]  # of the base with its weights, which are yet to come
    return adapted


def scorer_of_card(card: Mapping[str, Any]) -> ScorerCard | None:
    """The scorer that a model's gate was calibrated on; None without a gate.

    Raises:
        KeyError or ValueError: If the description is incomplete.
    """
    return ScorerCard.model_validate(card["scorer"]["card"]) if card.get("scorer") else None


def read_backbone(spec: Spec, weights: str | Path) -> tuple["Backbone", dict[str, Any]]:
    """A backbone of the registry or the catalogue with the weights of a file, and its description.

    Args:
        spec: The network.
        weights: A file, or ``hf://OWNER/REPOSITORY/NAME``; its names may be those of the project that published it.

    Raises:
        CheckpointError: If the file cannot be read or does not fit.
        ConfigError: If the backbone is unknown.
    """
    from facelab.backbone.names.import_names import import_backbone
    from facelab.weights.published_file import read_state
    from facelab.weights.published_source import SOURCES

    state, _ = SOURCES["facelab"].separate(read_state(str(weights)), str(weights))
    return import_backbone(spec, state, str(weights))
