"""Errors that a user can cause. Each carries one sentence: where, what was given, what would work."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class FacelabError(Exception):
    """Base of every error that is the user's to mend; the command line prints it without a traceback."""


class ConfigError(FacelabError):
    """A name, option or combination of options that cannot work."""


class DataError(FacelabError):
    """A data set, list or archive that cannot be used as it is."""


class CorruptImage(DataError):
    """One image or record that cannot be read; the message names it."""


class CheckpointError(FacelabError):
    """A checkpoint that is missing, damaged, unsafe or of another model."""


class DivergenceError(FacelabError):
    """A loss or gradient that is not finite."""


def printable(text: str) -> str:
    """A text as one line for a terminal: names of files may hold line feeds, and commands to the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """What an error of another library says, without what may follow over many lines; its type if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A suggestion ``" Did you mean 'x'?"`` with a leading space, or an empty string if nothing is close."""
    names = sorted(known)
    lowered = {name.lower(): name for name in reversed(names)}
    close = get_close_matches(given.lower(), list(lowered), n=1, cutoff=0.6)
    containing = [name for name in names if given and given.lower().startswith(name.lower())]
    best = lowered[close[0]] if close else (max(containing, key=len) if containing else None)
    return f" Did you mean '{best}'?" if best else ""


def in_range(
    what: str, value: float, low: float, high: float, *, low_open: bool = False, high_open: bool = False
) -> float:
    """Return ``value`` if it lies between ``low`` and ``high``.

    Args:
        what: Names the value in the message, for example ``"ArcFace margin"``.
        value: The number to check; NaN is always refused.
        low: Smallest allowed value.
        high: Largest allowed value.
        low_open: Refuse ``low`` itself.
        high_open: Refuse ``high`` itself.

    Raises:
        ConfigError: If the value is outside.
    """
    above = value > low if low_open else value >= low
    below = value < high if high_open else value <= high
    if above and below:
        return value
    left, right = "(" if low_open else "[", ")" if high_open else "]"
    raise ConfigError(f"{what} is {value!r}, but must lie in {left}{low:g}, {high:g}{right}.")


def one_of(what: str, value: str, known: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``known``.

    Raises:
        ConfigError: If it is not; the message lists what would work.
    """
    if value in known:
        return value
    raise ConfigError(f"{what} is {value!r}.{did_you_mean(str(value), known)} Known: {', '.join(known)}.")
