"""The settings of a run's training images."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from facelab.catalogue import Spec
from facelab.config import Strict
from facelab.data.transforms.augment import Change, quality_changes, with_defaults
from facelab.errors import ConfigError
from facelab.inputs import check_any_photo
from facelab.quality.card import ScoreSource
from facelab.threads import MOST_WORKERS, Reader


class DataSettings(Strict):
    """The ``data`` section.

    Attributes:
        source: What to train on; see ``facelab list sources``.
        size: Side of the square network input in pixels, or [height, width].
        resize: Resize aligned faces of another size; without it they are refused.
        any_photo: With ``resize``, take images too that cannot be aligned faces by their shape or size.
        sampler: Which images in which order; see ``facelab list samplers``.
        augment: Random changes on the device: options by the transform's name, or its probability alone, or null for
            none of it; see ``facelab list transforms``. Only ``flip: 0.5`` unless asked.
        workers: Threads or processes that read and decode; 0 for one per core, shared by the processes of a machine;
            ``auto`` leaves one core to the training loop, and takes up to 16.
        reader: ``threads``, ``processes``, or ``auto``: processes for sets of 20,000 images and more that have to be
            decoded.
        prefetch: Batches that may wait for the network, beside the one that each worker is reading.
        on_corrupt: ``error`` stops at an image that cannot be read, ``skip`` counts and replaces it.
        quality: Quality scores of the source's images, for networks and heads that take them: a table, or a scorer as
            ``{Sharpness: {}}`` (see ``facelab list scorers``), or null.
        online_quality: Let the scorer of `quality` score the images of each step as augmentation left them, instead of
            once as they were; gates are calibrated on the latter.
    """

    source: Spec
    size: int | tuple[int, int] = 112
    resize: bool = False
    any_photo: bool = False
    sampler: Spec = "Shuffle"
    augment: dict[str, Change] = Field(default_factory=dict, validate_default=True)
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] | Literal["auto"] = "auto"
    reader: Reader = "auto"
    prefetch: int = Field(default=4, ge=1, le=4096)
    on_corrupt: Literal["error", "skip"] = "error"
    quality: ScoreSource | None = None
    online_quality: bool = False

    @field_validator("augment")
    @classmethod
    def _with_defaults(cls, augment: dict[str, Change]) -> dict[str, Change]:
        try:
            return with_defaults(augment)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _agree_with_each_other(self) -> Self:
        if self.online_quality and not isinstance(self.quality, dict):
            raise ValueError("online_quality needs a scorer in quality, such as {Sharpness: {}}")
        try:
            check_any_photo(self.any_photo, self.resize)
            self.refuse_stale_scores()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def refuse_stale_scores(self) -> None:
        """Refuse scores of whole images where the network sees better or worse ones; plugins may be known only later.

        Raises:
            ConfigError: If there are scores, none are made anew in each step, and a transform changes quality.
        """
        changed = quality_changes(self.augment)
        if changed and self.quality is not None and not self.online_quality:
            raise ConfigError(
                f"data.augment.{changed[0]} changes how good an image is, but data.quality says how good it was "
                "before; set data.online_quality: true, so that a scorer sees what the network sees, or leave "
                f"augment.{changed[0]} out."
            )

    @property
    def height_width(self) -> tuple[int, int]:
        """Size as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size
