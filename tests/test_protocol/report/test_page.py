"""The page: self-contained, escaped, complete."""

import base64
import hashlib
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.report.charts import Chart, Line
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.line_style import COLOURS, OTHERS
from facelab.test_protocol.report.page import _words, render_page, short_location

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
JPEG = b"\xff\xd8\xff\xe0"


class Page(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def all(self, name: str, attribute: str) -> list[str]:
        return [str(attrs[attribute]) for tag, attrs in self.tags if tag == name and attribute in attrs]


def with_mistakes(report: Report) -> Report:
    pictures = (Picture("/faces/A/A_1.jpg", JPEG, 0.25), Picture(f"/faces/B/{HOSTILE}", JPEG, 0.5))
    gone = (Picture("a/1.jpg", b""), Picture("a/2.jpg", b""))
    mistakes = (Mistake("false match", 0, 1, 0.75, pictures), Mistake("false non-match", 2, 3, 0.1, gone))
    return replace(report, mistakes=(*mistakes, Mistake("false match", 4, 5, 0.5)))


def test_every_chart_and_mistake_is_there(reports: dict[str, list[Report]]) -> None:
    reports = {**reports, "strong": [with_mistakes(reports["strong"][0])]}
    text = render_page("t", reports, compare(reports))
    page = Page(text)
    charts = json.loads(page.scripts[0])
    assert [chart["kind"] for chart in charts] == ["roc", "det", "scores", "scores", "scores"]
    assert page.all("figure", "data-chart") == ["0", "1", "2", "3", "4"]
    assert [line["name"] for line in charts[0]["lines"]] == ["weak_50% & <i>", "strong"]
    assert len(page.all("img", "src")) == 2  # of the mistake that has pictures; one is gone, one was never read
    assert "score <b>0.7500</b>, quality 0.25 and 0.5" in text
    assert text.count("the image could not be read") == 2
    assert "A/A_1.jpg" in text


def test_one_legend_and_the_same_colour_everywhere(reports: dict[str, list[Report]]) -> None:
    given = {"untested": [], **reports, "twin": reports["strong"]}
    page = Page(render_page("t", given, compare(given)))
    assert page.all("p", "class").count("legend") == 1
    colours: dict[str, set[str]] = {}
    for chart in json.loads(page.scripts[0]):
        for line in chart["lines"] if chart["by_model"] else ():
            colours.setdefault(line["name"], set()).add(line["colour"])
    assert colours == {"weak_50% & <i>": {COLOURS[1]}, "strong": {COLOURS[2]}, "twin": {COLOURS[3]}}
    strokes = page.all("line", "stroke")
    assert strokes[:4] == list(COLOURS[:4])  # of the table's rows
    assert strokes[4:9] == [*COLOURS[:4], OTHERS.colour]  # of the legend
    dashes = {line["name"]: line["dash"] for line in json.loads(page.scripts[0])[0]["lines"]}
    assert (dashes["strong"], dashes["twin"]) == ([], [6, 6])  # equal curves, and both are seen


def test_warnings_are_folded_into_one(reports: dict[str, list[Report]]) -> None:
    text = render_page("t", reports, compare(reports, warnings=["one", "two", "three"]))
    assert text.count('<details class="warning">') == 1
    assert "3 warnings: not everything was measured alike, or completely" in text
    assert "<li>two</li>" in text
    assert "warning" not in Page(render_page("t", reports, compare(reports))).all("details", "class")


def test_nothing_from_outside_becomes_markup_or_is_fetched(reports: dict[str, list[Report]]) -> None:
    hostile = with_mistakes(reports["strong"][0])
    metrics = (replace(hostile.metrics[0], note=HOSTILE), *hostile.metrics[1:])
    options = {HOSTILE: HOSTILE, "files": {HOSTILE: "javascript:alert(3)", "log": '"><b>'}}
    given = {HOSTILE: [replace(hostile, protocol=HOSTILE, metrics=metrics, options=options)]}
    text = render_page(HOSTILE, given, compare(given, warnings=[HOSTILE]), texts={HOSTILE: HOSTILE})
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    pictures = page.all("img", "src")
    assert len(pictures) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    assert "javascript%3Aalert%283%29" in page.all("a", "href")
    assert not any(link.startswith(("javascript:", "http")) for link in page.all("a", "href"))
    assert json.loads(page.scripts[0])[0]["lines"][0]["name"] == HOSTILE


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("threshold@FAR=1e-3 [%]", ["threshold@", "FAR=1e-3 ", "[%]"]),
        ("a @ b", ["a ", "@ ", "b"]),
        ("", []),
        ("@", ["@"]),
    ],
)
def test_titles_are_broken_between_words(title: str, words: list[str]) -> None:
    assert "".join(_words(title)) == title
    assert _words(title) == words


def test_images_are_called_by_what_tells_them_apart() -> None:
    assert short_location("/data/faces\\Ann/Ann_1.jpg") == "Ann/Ann_1.jpg"
    assert short_location("/c/synthetic-1.npy[3] (person 7, photo 4)") == "person 7, photo 4"


def test_only_the_own_script_may_run(reports: dict[str, list[Report]]) -> None:
    page = Page(render_page("t", reports, compare(reports)))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    (policy,) = (attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_long_curves_are_thinned_to_what_a_screen_shows() -> None:
    far, tar = np.geomspace(1e-6, 1, 5000), np.linspace(0, 1, 5000)
    given = {"m": [Report("IJB-C", (Metric("a", 0.5),), curves={"far": far, "tar": tar})]}
    (line,) = json.loads(Page(render_page("t", given, compare(given))).scripts[0])[0]["lines"]
    assert 300 < len(line["x"]) <= 400
    assert (line["x"][0], line["x"][-1]) == (1e-6, 1.0)


def test_numbers_of_several_models_stand_beside_each_other() -> None:
    given = {"a": [Report("P", (Metric("x", 0.5, note="one"), Metric("y", 0.25, note="all")))]}
    given["b"] = [Report("P", (Metric("x", None, note="two"), Metric("y", 0.75, note="all")), {"flip": True})]
    text = render_page("t", given, compare(given))
    assert "<small>one</small>" in text
    assert "<small>two</small>" in text
    assert text.count(">all<") == 1
    assert 'class="differs"' in text


def test_training_and_nothing_else() -> None:
    chart = Chart("training", "loss", "update", "", (Line("loss", np.arange(3.0), np.ones(3)),), (0, 2), (0, 1))
    text = render_page("run", {"m": []}, compare({"m": []}), [chart])
    assert "No protocol was run" in text
    assert json.loads(Page(text).scripts[0])[0]["title"] == "loss"


@pytest.mark.parametrize("value", ["word", 1, None, [1, 2], {"a": True}])
def test_options_of_every_type_are_shown(value: object) -> None:
    given = {"m": [Report("P", (Metric("x", 0.5),), {"option": value})]}
    assert "<td>option</td>" in render_page("t", given, compare(given))
