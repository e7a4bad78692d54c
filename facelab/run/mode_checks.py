"""What a mode cannot train with, told before the first step."""

from torch.nn.modules.batchnorm import _BatchNorm

from facelab.data.transforms.augment import Augment
from facelab.engine.compilation import Compile
from facelab.errors import ConfigError
from facelab.training_mode.base import TrainingMode


def refuse_missing_occluders(mode: TrainingMode, augment: Augment) -> None:
    """Refuse a mode that learns where faces are hidden if nothing hides them.

    Raises:
        ConfigError: If so; says what does.
    """
    if mode.wants_occluded and not any(transform.occludes for transform in augment.transforms.values()):
        raise ConfigError(
            "the mode learns where faces are hidden, and no transform of data.augment hides a part and says which; add "
            "data.augment.occlude={probability: 0.5}."
        )


def refuse_compiled_changes(mode: TrainingMode, compile: Compile) -> None:
    """Refuse to compile a network that a mode changes between passes, which the compiled one would not see.

    Raises:
        ConfigError: If so; says what changes.
    """
    if compile != "off" and mode.changes_network:
        raise ConfigError(
            f"training.compile={compile} makes one program of the network, but {mode.changes_network}; set "
            "training.compile=off."
        )


def refuse_single_images(mode: TrainingMode, images: int) -> None:
    """BatchNorm cannot normalise one image: it is its own mean.

    Args:
        mode: What is trained.
        images: In one pass of this process.

    Raises:
        ConfigError: If there is one, and something trained has BatchNorm that follows the batch.
    """
    modules = (part for module in mode.trained_modules() for part in module.modules())
    if images < 2 and any(isinstance(part, _BatchNorm) and part.training for part in modules):
        raise ConfigError(
            "the network has BatchNorm, which needs at least two images in each pass of a process, and there is one: "
            "raise training.batch_size, or lower training.accumulate or the number of processes."
        )
