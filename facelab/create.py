"""Networks and losses by name, for those who write their own loop: ``facelab.create_model("r50")``."""

from fnmatch import fnmatchcase
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facelab.adapter.base import AdaptedBackbone
    from facelab.adapter.gate import Gate
    from facelab.backbone.base import Backbone
    from facelab.catalogue import Spec
    from facelab.head.loss import HeadLoss
    from facelab.registry import Registry


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` takes, sorted: those of the catalogue, of the registry and of installed plugins.

    Args:
        pattern: As in a shell: ``*`` any text, ``?`` any letter, ``[ab]`` one of some; upper and lower case are one.
    """
    from facelab.backbone.base import BACKBONES

    return _matching(BACKBONES, pattern)


def list_heads(pattern: str = "*") -> list[str]:
    """Names that `create_head` takes, sorted. See `list_models` for ``pattern``."""
    from facelab.head.base import HEADS

    return _matching(HEADS, pattern)


def list_adapters(pattern: str = "*") -> list[str]:
    """Names that `add_adapter` takes, sorted. See `list_models` for ``pattern``."""
    from facelab.adapter.base import ADAPTERS

    return _matching(ADAPTERS, pattern)


def _matching(registry: "Registry[Any]", pattern: str) -> list[str]:
    from facelab.catalogue import entries

    names = {*registry.names(), *entries(registry)}
    return sorted(name for name in names if fnmatchcase(name.lower(), pattern.lower()))


def create_model(name: str, /, *, weights: str | Path | None = None, **options: Any) -> "Backbone":
    """A network that turns normalised images (B, 3, H, W) into embeddings (B, D), in training mode, on the CPU.

    Args:
        name: One of `list_models`.
        weights: What to start from instead of random numbers: what `facelab.load` takes (a run's last checkpoint, one
            checkpoint, a model); a file of weights, .safetensors or PyTorch's, under the names of facelab or of the
            project that published the network; or ``hf://OWNER/REPOSITORY/FILE``. They must fit exactly.
        options: Options of the backbone, as in YAML: ``feat_dim=256``, ``input_spec={"height": 64, "width": 64}``. They
            win over those of the catalogue, key by key.

    Returns:
        The network; ``input_spec`` says which images it takes and ``feat_dim`` how long its embeddings are.
        `facelab.inputs.normalise` turns pixels into such images.

    Raises:
        ConfigError: If the name or an option is unknown or wrong, or the weights are of a network that takes other
            images or has adapters.
        CheckpointError: If the weights are missing, damaged, or do not fit.
    """
    from facelab.backbone.base import BACKBONES
    from facelab.catalogue import build
    from facelab.model.stored_model import is_stored_model, read_backbone

    spec: Spec = {name: options}
    if weights is None:
        return build(BACKBONES, spec).train()
    if is_stored_model(Path(weights)):
        return _with_stored(build(BACKBONES, spec), name, Path(weights)).train()
    return read_backbone(spec, weights)[0].train()


def _with_stored(network: "Backbone", name: str, source: Path) -> "Backbone":
    """The network with the weights of a stored model that was trained on images of its kind."""
    from facelab.errors import ConfigError
    from facelab.inputs import InputSpec
    from facelab.model.stored_model import read_stored_model
    from facelab.weights.card_check import check_card
    from facelab.weights.state_fit import load_weights

    card, state, _ = read_stored_model(source)
    check_card(card, str(source))
    if "adapter" in card:
        raise ConfigError(
            f"the weights '{source}' have adapters; take all by facelab.load('{source}').network, or merge them first "
            "(facelab merge)."
        )
    given = InputSpec(**card["input"])
    if given != network.input_spec:
        raise ConfigError(
            f"the weights '{source}' are of a network that takes {given.describe()}, but '{name}' takes "
            f"{network.input_spec.describe()}; pass input_spec={card['input']!r}."
        )
    load_weights(network, state, str(source))
    return network


def create_head(
    name: str,
    /,
    *,
    num_classes: int,
    feat_dim: int,
    classifier: "Spec" = "FullSoftmax",
    sample_weight: "Spec | None" = None,
    seed: int = 0,
    **options: Any,
) -> "HeadLoss":
    """A margin head with its class rows as one module, ``(embeddings (B, D), labels (B,)) -> loss ()``.

    Args:
        name: One of `list_heads`.
        num_classes: C, at least 2; labels are 0 to C - 1.
        feat_dim: D, the length of an embedding, at least 1.
        classifier: Who owns the rows, as in YAML: ``SubCenter``, ``{"FullSoftmax": {"initial": "normal"}}``.
        sample_weight: What weighs the samples of a batch by their losses, as in YAML: ``{"Focal": {"gamma": 2}}``.
        seed: The rows at start, not negative.
        options: Options of the head, as in YAML: ``margin=0.4, scale=32``. They win over those of the catalogue.

    Returns:
        The loss, in training mode, on the CPU. Its parameters are to be trained beside those of the network.

    Raises:
        ConfigError: If a name or an option is unknown, or out of range.
    """
    from facelab.catalogue import build
    from facelab.head.base import HEADS
    from facelab.head.classifier import CLASSIFIERS
    from facelab.head.loss import HeadLoss
    from facelab.head.sample_weight import SAMPLE_WEIGHTS

    num_classes, feat_dim = _whole("num_classes", num_classes, 2), _whole("feat_dim", feat_dim, 1)
    seed = _whole("seed", seed, 0)
    head = build(HEADS, {name: options}, num_classes=num_classes, feat_dim=feat_dim)
    rows = build(CLASSIFIERS, classifier, head=head, num_classes=num_classes, feat_dim=feat_dim, seed=seed)
    rows.sample_weight = None if sample_weight is None else build(SAMPLE_WEIGHTS, sample_weight)
    return HeadLoss(rows, feat_dim)


def add_adapter(network: "Backbone", name: str, /, *, gate: "Gate | None" = None, **options: Any) -> "AdaptedBackbone":
    """The network with adapters in its layers; what it was is frozen, as ``peft.get_peft_model`` does.

    Args:
        network: A backbone without adapters; it is changed in place and belongs to the adapted one from now on.
        name: One of `list_adapters`.
        gate: A gate, calibrated on the scores of the training images, for adapters that weigh experts by quality; the
            network then takes the scores (B,) beside the images.
        options: Options of the adapter, as in YAML: ``rank=8, targets=["*qkv"]``.

    Returns:
        The adapted network, in the mode in which ``network`` was. `facelab.adapter.peft_format.save_peft` and
        `facelab.adapter.files.save_adapter` write the adapters alone, and ``merged()`` gives an ordinary network.

    Raises:
        ConfigError: If the name or an option is unknown or does not fit the network, there are adapters already, or a
            gate is missing or of no use.
    """
    from facelab.adapter.base import ADAPTERS, AdaptedBackbone
    from facelab.catalogue import build
    from facelab.errors import ConfigError

    if isinstance(network, AdaptedBackbone):
        raise ConfigError("the network has adapters already; merge them first: network.merged().")
    if gate is not None and gate.scorer is None:
        raise ConfigError("the gate knows no scores yet; call gate.calibrate(scores, scorer) first.")
    return AdaptedBackbone(network, build(ADAPTERS, {name: options}), gate)


def _whole(what: str, value: int, least: int) -> int:
    from facelab.errors import ConfigError

    try:
        number = index(value)
    except TypeError:
        raise ConfigError(f"{what} is {value!r}, but must be a whole number.") from None
    if number < least:
        raise ConfigError(f"{what} is {number}, but must be at least {least}.")
    return number
