"""A headless Chromium, and pages to open in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.metrics.metrics import roc
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.run_report import write_comparison

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Selenium's driver; the tests are skipped with a sentence where it cannot run."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def scored(accuracy: float, shift: float) -> Report:
    """A report with curves and mistakes of random scores; ``shift`` parts same from different pairs."""
    random = np.random.default_rng(3)
    same = np.arange(400) % 2 == 0
    curve = roc(random.normal(shift * same, 0.2), same)
    curves = {"far": curve.far, "tar": curve.tar, "threshold": curve.threshold}
    curves |= {"rank": np.arange(1.0, 21.0), "rank_rate": 1 - accuracy / np.arange(2.0, 22.0)}
    jpeg = cv2.imencode(".jpg", random.integers(0, 255, (112, 112, 3), dtype=np.uint8))[1].tobytes()
    pictures = (Picture("faces/A/A_0001.jpg", jpeg, 0.5), Picture("faces/B/B_0001.jpg", jpeg, 0.25))
    mistakes = tuple(Mistake("false match", 0, 1, 0.9 - n / 20, pictures) for n in range(6))
    return Report("LFW", (Metric("accuracy", accuracy),), {"precision": "fp32"}, curves, mistakes=mistakes)


@pytest.fixture(scope="session")
def models() -> dict[str, list[Report]]:
    """Three models, one of them with a hostile name and one without LFW."""
    hostile = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
    other = Report("CFP-FP", (Metric("accuracy", 0.7),))
    return {"weak": [scored(0.6, 0.3)], hostile: [scored(0.9, 0.8)], "untested": [other]}


@pytest.fixture(scope="session")
def page(models: dict[str, list[Report]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``comparison.html`` of `models`."""
    return write_comparison(tmp_path_factory.mktemp("comparison"), models, compare(models))["html"]
