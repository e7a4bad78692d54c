"""What the description of a model may say; it comes with a model folder, so perhaps from anybody."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facelab.config import check_converted, check_numbers, dotted_place, shown
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec
from facelab.scorer_card import ScorerCard

CARD_FORMAT = 1
LARGEST = 1 << 20  # numbers of an embedding

Named = dict[str, dict[str, Any] | None]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Backbone(_Part):
    name: str
    options: dict[str, Any]


class _Scorer(_Part):
    card: ScorerCard
    spec: Named | None = None
    base: str | None = None


class _Card(_Part):
    """Fields that this version reads; others may stand beside them."""

    backbone: _Backbone
    input: InputSpec
    feat_dim: int = Field(ge=1, le=LARGEST)
    parameters: int = Field(default=0, ge=0)
    plugins: list[str] = []
    update: int = Field(default=0, ge=0)
    epoch: float = Field(default=0, ge=0, allow_inf_nan=False)


class _AdaptedCard(_Card):
    adapter: Named = Field(min_length=1, max_length=1)
    gate: Named | None
    base_hash: str
    embedding_dim: int = Field(default=1, ge=1, le=LARGEST)
    adapter_parameters: int = Field(default=0, ge=0)
    trained_parameters: int = Field(default=0, ge=0)
    scorer: _Scorer | None = None


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
    kind = _AdaptedCard if "adapter" in card else _Card
    front = f"the model description in '{where}' cannot be used: "
    try:
        check_numbers({name: card[name] for name in kind.model_fields if name in card})
        check_converted(card, kind.model_validate(card))
    except ValidationError as error:
        first, place = error.errors()[0], dotted_place(card, error)
        if first["type"] == "missing":
            raise CheckpointError(f"the model description in '{where}' is incomplete: '{place}' is missing.") from None
        raise CheckpointError(f"{front}'{place}' is {shown(first['input'])}: {first['msg'].rstrip('.')}.") from None
    except ConfigError as error:
        raise CheckpointError(f"{front}{error}") from None
    except ValueError as error:
        raise CheckpointError(f"{front}{error}.") from None
