"""Third-party modules that register heads, backbones and the rest.

A module that is imported may do whatever the user may. So it is imported only if the user's own command line or
configuration names it, or an installed package by its entry points; what a model folder or the folder of a run says is
never a reason.
"""

import importlib
import sys
from collections.abc import Iterable

from facelab.errors import ConfigError


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules by name, so that what they register is known.

    Args:
        modules: Named by the user, in a command or a configuration.

    Raises:
        ConfigError: If one cannot be found, or fails while it is imported.
    """
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ConfigError(f"plugins: {module!r} is no name of a module; write for example my.module.")
        try:
            importlib.import_module(module)
        except (ImportError, SyntaxError) as error:
            raise ConfigError(
                f"plugins: cannot import '{module}': {error}. Is it installed or on PYTHONPATH?"
            ) from None


def refuse_plugins(modules: Iterable[str], where: str) -> None:
    """Refuse to go on if a file from outside names plugins that the user did not import.

    Args:
        modules: What the file names.
        where: Names the file in the message.

    Raises:
        ConfigError: If one of the modules is not imported; the message says how to allow it.
    """
    if missing := [module for module in modules if module not in sys.modules]:
        options = " ".join(f"--plugin {module}" for module in missing)
        raise ConfigError(
            f"{where} names the plugin '{missing[0]}', which is not imported because a file says so; if you trust it, "
            f"add {options} to the command, or in Python: import {missing[0]}."
        )
