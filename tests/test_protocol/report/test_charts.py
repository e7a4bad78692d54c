"""What charts show of reports and of a training run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from facelab.errors import DataError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.metrics.metrics import roc as roc_of
from facelab.test_protocol.report.charts import Chart, charts_of, cmc, det, deviates, error_reject, roc, scores
from facelab.test_protocol.report.line_style import COLOURS, OTHERS, styles_of
from facelab.test_protocol.report.training_charts import read_curves, training_charts


def report(metrics: tuple[Metric, ...] = (Metric("accuracy", 0.9),), **curves: list[float]) -> Report:
    return Report("LFW", metrics, curves={name: np.array(values, float) for name, values in curves.items()})


WEAK = report(far=[0, 0, 0.02, 1], tar=[0, 0.5, 0.75, 1], threshold=[np.inf, 0.8, 0.4, -1])
STRONG = report(far=[0, 0, 0.5, 1], tar=[0, 0.9, 1, 1], threshold=[np.inf, 0.7, 0.3, -1])


def test_roc_begins_with_all_that_is_accepted_without_a_false_accept() -> None:
    chart = roc("LFW", {"weak": WEAK, "strong": STRONG, "none": report()})
    assert chart is not None
    assert [line.name for line in chart.lines] == ["weak", "strong"]
    weak = chart.lines[0]
    np.testing.assert_allclose(weak.x, [0.01, 0.02, 1])  # the power of ten below the least rate of all
    np.testing.assert_allclose(weak.y, [50, 75, 100])
    assert weak.threshold is not None
    np.testing.assert_allclose(weak.threshold, [0.8, 0.4, -1])
    assert chart.x_range == (0.01, 1.0)
    assert chart.y_range == (0.0, 100.0)
    assert chart.lines[1].x[0] == 0.01


def test_det_shows_what_roc_misses() -> None:
    chart = det("LFW", {"weak": WEAK})
    assert chart is not None
    np.testing.assert_allclose(chart.lines[0].y, [0.5, 0.25, 0])
    assert (chart.x_range, chart.y_range) == ((0.01, 0.5), (0.1, 0.5))
    assert (chart.x_scale, chart.y_scale) == ("probit", "probit")


def test_det_of_gaussian_scores_is_a_straight_line_and_that_of_scikit_learn() -> None:
    from sklearn.metrics import det_curve

    # Quantiles of normal distributions of one deviation, 2 apart, and some ties: deviates of the rates add up to -2.
    deviate = ndtri((np.arange(4000) + 0.5) / 4000)
    values = np.concatenate([deviate, deviate + 2]).round(3)
    same = np.arange(8000) >= 4000
    curve = roc_of(values, same)
    chart = det("LFW", {"one": report(far=curve.far, tar=curve.tar)})
    assert chart is not None
    (line,) = chart.lines
    inner = (line.x > 0.003) & (line.x < 0.4) & (line.y > 0.003)
    np.testing.assert_allclose(deviates(line.x[inner]) + deviates(line.y[inner]), -2, atol=0.02)
    fpr, fnr, _ = det_curve(same, values)
    drawn = set(zip(line.x.round(9), line.y.round(9), strict=True))
    assert drawn >= {pair for pair in zip(fpr.round(9), fnr.round(9), strict=True) if 0 < pair[0] < 1}
    # Whoever rejects nearly all at a strict threshold needs a taller axis than one up to a half.
    assert chart.y_range[1] == 0.99


def styles(chart: Chart | None) -> dict[str, str]:
    assert chart is not None
    return {line.name: line.style.colour for line in chart.lines}


def test_a_model_has_its_colour_wherever_it_is_tested() -> None:
    of_page = styles_of(["weak", "strong"])
    both, alone = (
        charts_of("LFW", given, of_page)[0] for given in ({"weak": WEAK, "strong": STRONG}, {"strong": STRONG})
    )
    assert styles(both)["strong"] == styles(alone)["strong"] == COLOURS[1]
    counts = {"score_edges": [0.0, 0.5, 1.0], "same_count": [1.0, 3.0], "different_count": [2.0, 0.0]}
    (histogram,) = charts_of("LFW", {"strong": report(**counts)}, of_page)
    assert styles(histogram) == {"different pairs (2)": OTHERS.colour, "same pairs (4)": COLOURS[1]}


def test_equal_curves_are_both_seen() -> None:
    first, second = charts_of("LFW", {"a": WEAK, "b": WEAK})[0].lines
    assert (first.style.dash, second.style.dash) == ((), (6.0, 6.0))


PERFECT = report(far=[0, 0, 1], tar=[0, 1, 1], threshold=[np.inf, 0.5, -1])


def test_who_makes_no_errors_is_named_instead_of_drawn() -> None:
    chart = det("LFW", {"perfect": PERFECT})
    assert chart is not None
    assert (chart.lines, chart.note) == ((), "no errors")
    assert (chart.x_range, chart.y_range) == ((0.1, 0.5), (0.1, 0.5))
    chart = det("LFW", {"perfect": PERFECT, "weak": WEAK})
    assert chart is not None
    assert ([line.name for line in chart.lines], chart.note) == (["weak"], "no errors: perfect")
    chart = error_reject("LFW", {"m": report(reject=[0, 0.5], fnmr=[0, 0])})
    assert chart is not None
    assert (chart.lines, chart.note) == ((), "no errors")


def test_a_cmc_ends_where_it_says_no_more() -> None:
    rank = list(range(1, 101))
    rates = {"a": [0.5, 0.75, *[0.8] * 98], "b": [0.5] * 19 + [0.6] * 81}
    found = {model: report(rank=rank, rank_rate=rate) for model, rate in rates.items()}
    chart = cmc("TinyFace", {"a": found["a"]})
    assert chart is not None
    assert (chart.x_range, len(chart.lines[0].x), chart.x_scale) == ((1.0, 5.0), 5, "linear")
    chart = cmc("TinyFace", found)
    assert chart is not None
    assert chart.x_range == (1.0, 22.0)
    chart = cmc("TinyFace", {"perfect": report(rank=rank, rank_rate=[1.0] * 100)})
    assert chart is not None
    assert (chart.lines, chart.note) == ((), "no errors")


def test_histograms_of_a_protocol_share_their_axes() -> None:
    edges = list(np.linspace(-1, 1, 9))
    low = report(score_edges=edges, same_count=[0, 0, 1, 1, 0, 0, 0, 0], different_count=[2, 0, 0, 0, 0, 0, 0, 0])
    high = report(score_edges=edges, same_count=[0] * 7 + [4], different_count=[0, 0, 0, 0, 1, 1, 1, 1])
    first, second = charts_of("LFW", {"low": low, "high": high})
    assert first.x_range == second.x_range == (-1.0, 1.0)
    assert first.y_range == second.y_range == (0.0, 105.0)
    assert len(charts_of("LFW", {f"{n}": low for n in range(100)})) == 24


def test_no_curve_no_chart() -> None:
    assert charts_of("LFW", {"m": report()}) == []
    assert roc("LFW", {"m": report(far=[0, 0], tar=[0, 1])}) is None  # not one false accept
    assert scores(report(score_edges=[0, 1], same_count=[0], different_count=[0]), "none") is None


def test_cmc_and_error_reject() -> None:
    chart = cmc("TinyFace", {"m": report(rank=[1, 5, 20], rank_rate=[0.25, 0.5, 0.75])})
    assert chart is not None
    np.testing.assert_allclose(chart.lines[0].y, [25, 50, 75])
    assert (chart.x_range, chart.y_range) == ((1.0, 20.0), (0.0, 100.0))
    curve = error_reject("LFW", {"m": report(reject=[0, 0.5], fnmr=[0.2, 0.1])})
    assert curve is not None
    np.testing.assert_allclose(curve.lines[0].x, [0, 50])
    assert curve.y_range[1] == pytest.approx(21)


def test_scores_show_the_threshold_and_the_used_range() -> None:
    counts = {"same_count": [0.0] * 6 + [1, 3], "different_count": [0.0] * 4 + [2, 2, 0, 0]}
    threshold = Metric("threshold", 0.5, unit="score")
    chart = scores(report((threshold,), score_edges=list(np.linspace(-1, 1, 9)), **counts), "scores")
    assert chart is not None
    assert [line.name for line in chart.lines] == ["different pairs (4)", "same pairs (4)"]
    np.testing.assert_allclose(chart.lines[1].y[-2:], [25, 75])
    assert chart.marks == (("threshold 0.500", 0.5),)
    assert chart.x_range == (-0.5, 1.0)


def write_metrics(path: Path) -> None:
    lines = [json.dumps({"update": n, "loss": 10 / n, "accuracy": n / 40, "lr": 0.1}) for n in range(1, 40)]
    lines += [json.dumps({"update": 40, "LFW/accuracy": 0.7}), '{"update": 41, "lo']
    path.write_text("\n".join(lines))


def test_training_charts(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl")
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert curves["LFW/accuracy"] == ([40.0], [0.7])
    assert len(curves["loss"][0]) == 39  # the unfinished last line is passed over
    charts = training_charts(tmp_path / "metrics.jsonl")
    assert [chart.title for chart in charts] == ["loss", "training accuracy [%]", "learning rate", "evaluation [%]"]
    assert charts[3].lines[0].y[0] == pytest.approx(70)
    assert charts[0].y_range[0] == 0
    assert charts[2].y_range[0] < 0.1 < charts[2].y_range[1]


def test_what_is_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    """A loss scale that is still too high makes the gradient norm of the first updates NaN."""
    values = [{"update": 1, "loss": 3.0, "grad_norm": math.nan}, {"update": 2, "loss": math.inf, "grad_norm": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in values))
    assert read_curves(tmp_path / "metrics.jsonl") == {"loss": ([1.0], [3.0]), "grad_norm": ([2.0], [2.0])}


def test_training_charts_refuse(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        training_charts(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"update": 1}\nnoise\n{"update": 2}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: is not a JSON object"):
        training_charts(tmp_path / "bad.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="nothing to draw"):
        training_charts(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"update": NaN}',
        '{"update": -1}',
        '{"update": true}',
        '{"update": 1e999}',
        '{"update": ' + "9" * 5000 + "}",
        '{"update": [1]}',
        "\ud800",
    ],
)
def test_lines_of_others_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{line}\n{{"update": 2, "loss": 1}}\n', "utf-8", "surrogatepass")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        training_charts(path)


def test_numbers_that_no_axis_holds_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"update": 1, "loss": 1e308, "lr": true, "accuracy": "x"}\n{"update": 2, "loss": 0.5, "\\u001b/x": 1}\n'
    )
    charts = training_charts(path)
    assert [line.y.tolist() for line in charts[0].lines] == [[0.5]]
    assert charts[1].lines[0].name == r"\x1b/x"
    path.write_text(json.dumps({"update": 1, **{f"{n}/a": 1 for n in range(300)}}) + "\n")
    with pytest.raises(DataError, match="more than 200 numbers by name"):
        training_charts(path)


def test_the_axis_begins_a_little_below_the_lowest_line() -> None:
    chart = roc("LFW", {"m": report(far=[0, 0.5, 1], tar=[0.98, 0.99, 1])})
    assert chart is not None
    assert chart.y_range == (95.0, 100.0)
