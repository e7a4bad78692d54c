"""The page in a real browser: it opens from a file, sorts, shows the images, and curves can be read off."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.test_protocol.base import Report

pytestmark = pytest.mark.browser
TABLE = "table.sortable"


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    browser.get_log("browser")
    resize(browser, 1280)
    browser.get(page.as_uri())
    return browser


def resize(browser: Any, width: int, height: int = 900) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def first_column(browser: Any) -> list[str]:
    script = f"return [...document.querySelector('{TABLE}').tBodies[0].rows].map(row => row.cells[0].textContent)"
    return [str(text) for text in browser.execute_script(script)]


def heading(browser: Any, column: int) -> Any:
    return browser.find_elements("css selector", f"{TABLE} thead th")[column]


def test_it_opens_from_a_file_without_errors_and_fetches_nothing(opened: Any) -> None:
    assert opened.get_log("browser") == []
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert opened.title == "Comparison of 3 models – facelab"  # and no hostile name has changed it
    assert opened.execute_script("return document.scripts.length") == 2


def test_every_image_is_shown(opened: Any) -> None:
    for details in opened.find_elements("css selector", "details"):
        opened.execute_script("arguments[0].open = true", details)
    sizes = opened.execute_script("return [...document.images].map(image => [image.complete, image.naturalWidth])")
    assert sizes == [[True, 112]] * 24


def test_headings_sort_by_click_and_by_key(opened: Any) -> None:
    before = first_column(opened)
    assert before[0] == "weak"
    column = 1  # LFW
    heading(opened, column).find_element("css selector", "button").click()
    assert heading(opened, column).get_attribute("aria-sort") == "descending"
    assert first_column(opened) == [before[1], "weak", "untested"]
    heading(opened, column).find_element("css selector", "button").send_keys("\n")
    assert heading(opened, column).get_attribute("aria-sort") == "ascending"
    assert first_column(opened) == ["weak", before[1], "untested"]  # what is missing stays last
    heading(opened, 0).find_element("css selector", "button").send_keys(" ")
    assert first_column(opened) == sorted(before, key=str.lower)
    assert heading(opened, column).get_attribute("aria-sort") is None


@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_column_stays_while_the_table_scrolls(opened: Any, width: int) -> None:
    resize(opened, width)
    script = """
        const table = document.querySelector('table.sortable');
        for (const row of table.rows)
            for (let n = 0; n < 20; n += 1) row.append(row.cells[1].cloneNode(true));
        const left = () => table.tBodies[0].rows[0].cells[0].getBoundingClientRect().left;
        const before = left();
        table.parentElement.scrollLeft = 500;
        const second = table.tBodies[0].rows[0].cells[1].getBoundingClientRect().right;
        return [before, left(), second, document.documentElement.scrollWidth]"""
    before, after, second, page_width = opened.execute_script(script)
    assert after == before >= 0
    assert second < after
    assert page_width <= width


def test_a_chart_shows_its_readout_only_while_it_is_read(opened: Any) -> None:
    chart = opened.find_elements("css selector", "figure.chart")[0]
    readout = chart.find_element("css selector", ".readout")
    assert not readout.is_displayed()
    height = opened.execute_script("return document.documentElement.scrollHeight")
    chart.find_element("css selector", "svg[tabindex]").send_keys("\ue014")
    assert readout.is_displayed()
    assert opened.execute_script("return document.documentElement.scrollHeight") == height  # nothing jumps


def test_sorting_goes_by_numbers_not_by_letters(opened: Any) -> None:
    script = """
        const [first, second] = document.querySelector('table.sortable').tBodies[0].rows;
        first.cells[1].dataset.value = '9'; second.cells[1].dataset.value = '10';"""
    opened.execute_script(script)
    heading(opened, 1).find_element("css selector", "button").click()
    assert first_column(opened)[1] == "weak"


def read_out(browser: Any, chart: int) -> list[list[str]]:
    script = """
        const figure = document.querySelectorAll('figure.chart')[arguments[0]];
        return [...figure.querySelectorAll('.readout tr')].map(row => [...row.cells].map(cell => cell.textContent))"""
    return [[str(text) for text in row] for row in browser.execute_script(script, chart)]


def test_curves_can_be_read_off_with_the_pointer(opened: Any, models: dict[str, list[Report]]) -> None:
    from selenium.webdriver import ActionChains

    figure = opened.find_element("css selector", "figure.chart svg[tabindex]")
    opened.execute_script("arguments[0].scrollIntoView()", figure)
    ActionChains(opened).move_to_element_with_offset(figure, 40, 0).perform()
    (place, *_), *rows = read_out(opened, 0)
    far = float(place.removeprefix("false accept rate: ").replace("\N{MINUS SIGN}", "-"))
    assert 1e-3 < far < 1
    for (name, tar, threshold), (model, of_model) in zip(rows, models.items(), strict=False):
        curves = of_model[0].curves
        row = int(np.searchsorted(curves["far"], far * 1.0005, "right")) - 1
        assert name == model
        assert float(tar) == pytest.approx(100 * curves["tar"][row], abs=0.006)
        assert float(threshold) == pytest.approx(curves["threshold"][row], abs=1e-4)


def test_curves_can_be_read_off_with_arrow_keys(opened: Any) -> None:
    cmc = opened.find_elements("css selector", "figure.chart svg[tabindex]")[2]
    cmc.send_keys("\ue014")  # right
    first = read_out(opened, 2)
    assert first[0][0] == "rank: 11"
    assert first[1][1] == "95.00"  # 1 - 0.6 / 12
    for _ in range(9):
        cmc.send_keys("\ue012")  # left
    assert read_out(opened, 2)[1][1] == "94.00"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_any_width(opened: Any, width: int, page: Path) -> None:
    """With FACELAB_SCREENSHOTS a picture of each width is left in that folder, to be looked at."""
    resize(opened, width)
    opened.get(page.as_uri())
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    charts = opened.find_elements("css selector", "figure.chart svg[tabindex]")
    assert all(250 < chart.size["width"] <= width for chart in charts)
    if folder := os.environ.get("FACELAB_SCREENSHOTS"):
        resize(opened, width, opened.execute_script("return document.documentElement.scrollHeight"))
        opened.save_screenshot(str(Path(folder) / f"page-{width}.png"))
    assert opened.get_log("browser") == []
