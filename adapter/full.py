"""Fine-tuning of the backbone's own parameters: all of them, or those chosen by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from facelab.adapter.base import ADAPTERS, Adapter
from facelab.adapter.targets import check_length
from facelab.backbone.base import Backbone
from facelab.errors import ConfigError

SHOWN = 12


@ADAPTERS.register("Full")
class Full(Adapter):
    """Trains parameters of the backbone as they are; the rest stays frozen.

    Args:
        parameters: Names of parameters, with ``*`` for any text; ``*`` is full fine-tuning, ``*.norm*`` the norms …
        moving_statistics: Let the BatchNorm layers follow the training images, as they do in ordinary training.

    Raises:
        ConfigError: If a pattern matches no parameter.
    """

    def __init__(self, parameters: tuple[str, ...] = ("*",), moving_statistics: bool = False) -> None:
        self.parameters = parameters
        self.moving_statistics = moving_statistics

    def inject(self, network: Backbone) -> None:
        """Set the chosen parameters free."""
        check_length(self.parameters)
        names = [name for name, _ in network.named_parameters()]
        for pattern in self.parameters:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(_nothing(pattern, names))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in self.parameters))


def _nothing(pattern: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"the pattern '{pattern}' matches none of the {len(names)} parameters. "
        f"Could match: {', '.join(names[:SHOWN])}{more}."
    )
