"""What the description of a model may say; it comes with a model folder, so perhaps from anybody."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from facelab.config import check_converted, check_numbers, first_error, shown
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard
from facelab.weights.calibration import Calibration

CARD_FORMAT = 1
LARGEST = 1 << 20  # numbers of an embedding

MOST_VALUES = 1 << 12  # among the options of one network
GIVEN = ("weights", "input_spec", "feat_dim")  # options that a description has elsewhere, or not at all


def _checked_options(options: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refuse numbers and lists that no network has; types are the registry's to check."""
    level: list[Any] = [options]
    count = 0
    while level:
        count += len(level)
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if large := [value for value in level if isinstance(value, int) and abs(value) > LARGEST]:
            raise ValueError(f"no network has options of {large[0]}; at most {LARGEST}")
        level = [child for value in level for child in _inside(value)]
    if given := [name for name in GIVEN if name in (options or {})]:
        raise ValueError(f"'{given[0]}' has no place here")
    return options


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


Options = Annotated[dict[str, Any] | None, AfterValidator(_checked_options)]
Named = dict[str, Options]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Backbone(_Part):
    name: str
    options: Annotated[dict[str, Any], AfterValidator(_checked_options)]


class _Scorer(_Part):
    card: ScorerCard
    spec: dict[str, dict[str, Any] | None] | None = None
    base: str | None = None


class _Card(_Part):
    """Fields that this version reads; others may stand beside them."""

    backbone: _Backbone
    input: InputSpec
    feat_dim: int = Field(ge=1, le=LARGEST)
    parameters: int = Field(ge=0)
    plugins: list[str] = []
    update: int = Field(default=0, ge=0)
    epoch: float = Field(default=0, ge=0, allow_inf_nan=False)
    scorer: _Scorer | None = None
    calibration: Calibration | None = None


class AdapterPart(_Part):
    """Adapters and what they need, in a model's description or a file of adapters.

    Attributes:
        adapter: The adapter as ``{name: options}``.
        gate: Its gate likewise, or None.
        scorer: The scorer that the gate was calibrated on, or None.
    """

    adapter: Named = Field(min_length=1, max_length=1)
    gate: Annotated[Named, Field(min_length=1, max_length=1)] | None
    scorer: _Scorer | None = None


class _AdaptedCard(_Card, AdapterPart):
    base_hash: str
    embedding_dim: int = Field(default=1, ge=1, le=LARGEST)
    adapter_parameters: int = Field(default=0, ge=0)
    trained_parameters: int = Field(default=0, ge=0)


def check_card(card: Mapping[str, Any], where: str) -> None:
    """Refuse a description that is incomplete, of a newer format, or says what cannot be.

    Args:
        card: The description as read from JSON.
        where: Names the folder in messages.

    Raises:
        CheckpointError: With the dotted name of the first field that is wrong.
    """
    if card.get("format") != CARD_FORMAT:
        raise CheckpointError(
            f"the model description in '{where}' has format {shown(card.get('format'))}; this facelab reads format "
            f"{CARD_FORMAT}."
        )
    check_part(_AdaptedCard if "adapter" in card else _Card, card, f"the model description in '{where}'")


def check_part(kind: type[_Part], card: Mapping[str, Any], what: str) -> None:
    """Refuse a description that lacks a field of one of the classes here, or has it with another type or range.

    Raises:
        CheckpointError: With the dotted name of the first field that is wrong.
    """
    front = f"{what} cannot be used: "
    try:
        check_numbers({name: card[name] for name in kind.model_fields if name in card})
        check_converted(card, kind.model_validate(card))
    except ValidationError as error:
        first, place = first_error(card, error)
        if first["type"] == "missing":
            raise CheckpointError(f"{what} is incomplete: '{place}' is missing.") from None
        raise CheckpointError(f"{front}'{place}' is {shown(first['input'])}: {first['msg'].rstrip('.')}.") from None
    except ConfigError as error:
        raise CheckpointError(f"{front}{error}") from None
    except ValueError as error:
        raise CheckpointError(f"{front}{error}.") from None
