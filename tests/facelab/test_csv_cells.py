"""Cells that no spreadsheet runs, and that come back as they were."""

import pytest

from facelab.csv_cells import as_cell, from_cell


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd", "-x", "@SUM(A1)", "\tx", "\r=x", "'=1", "''", "-", "=", "-\t1"])
def test_formulas_are_written_as_text_and_read_back(text: str) -> None:
    assert as_cell(text) == f"'{text}"
    assert from_cell(as_cell(text)) == text


@pytest.mark.parametrize("text", ["a/1.jpg", "-1.5e-3", "+2", "", "a=b", "O'Brien/1.jpg", "-0.25"])
def test_others_stay_as_they_are(text: str) -> None:
    assert as_cell(text) == text
    assert from_cell(text) == text


def test_tables_from_before_keep_their_names() -> None:
    assert from_cell("'t Hooft/1.jpg") == "'t Hooft/1.jpg"
