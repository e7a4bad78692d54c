"""Third-party modules that register heads, backbones and the rest."""

import importlib
from collections.abc import Iterable

from facelab.errors import ConfigError


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules by name, so that what they register is known.

    Raises:
        ConfigError: If one cannot be found, or fails while it is imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import '{module}': {error}. Is it installed or on PYTHONPATH?"
            ) from None
