"""What all drawings share: fonts for the names of models and people, without a word from matplotlib, and legends."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Each letter is drawn by the first of them that is installed and has it; the first comes with matplotlib."""
LONGEST_NAME = 40
MOST_NAMED = 14  # lines that a legend names


@contextmanager
def drawing() -> Iterator[None]:
    """Figures are made and written inside of this.

    matplotlib's warnings say that a font lacks a letter, or that names leave a plot no room; the picture shows both.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts: Any = {"font.family": [name for name in FONTS if name in installed]}
    with matplotlib.rc_context(fonts), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def short_name(text: str, longest: int = LONGEST_NAME) -> str:
    """A name in one line that leaves room for a plot: beginning and end, by which runs differ, of a longer one."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    half = (longest - 1) // 2
    return f"{line[: longest - 1 - half]}…{line[-half:]}"


def name_lines(owner: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """A legend of at most `MOST_NAMED` lines, which says how many there are more.

    Args:
        owner: Axes or a figure.
        handles: What is named.
        names: What it is called.
        options: Of matplotlib's legend.
    """
    from matplotlib.lines import Line2D

    handles, names = list(handles), [short_name(name) for name in names]
    if len(names) > MOST_NAMED:
        more = len(names) - MOST_NAMED + 1
        handles, names = [*handles[:-more], Line2D([], [], linestyle="none")], [*names[:-more], f"and {more:,} more"]
    legend = owner.legend(handles, names, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a model's name is no formula
