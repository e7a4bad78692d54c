"""Cells of CSV files that spreadsheets show as they are: names from outside may look like formulas, which they run."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that Excel and LibreOffice take for a formula."""
MARK = "'"
"""What spreadsheets put before a text that is none."""


def as_cell(text: str) -> str:
    """A cell as it is written: behind an apostrophe if it would be a formula and is no number."""
    return f"{MARK}{text}" if text.startswith((*FORMULA, MARK)) and not _is_number(text) else text


def from_cell(cell: str) -> str:
    """The text that `as_cell` wrote as ``cell``."""
    return cell[1:] if cell.startswith(MARK) and cell[1:].startswith((*FORMULA, MARK)) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()
