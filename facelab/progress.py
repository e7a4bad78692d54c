"""How whoever works for long says how far it is."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

OnStage = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""
