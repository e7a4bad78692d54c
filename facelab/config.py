"""YAML -> checked, frozen settings: ``extends``, dotted overrides, pydantic models, errors that say what would work."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
