from typing import Any

import numpy as np
import pytest
import torch

from facelab import metrics
from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics import identification
from facelab.test_protocol.metrics import metrics as definitions

RANDOM = np.random.default_rng(0)
SAME = np.arange(400) % 2 == 0
SCORES = np.round(RANDOM.normal(size=400) + SAME, 1)  # with ties


def test_pairs_have_the_metrics_of_the_protocols() -> None:
    curve = definitions.roc(SCORES, SAME)
    np.testing.assert_array_equal(metrics.roc(SCORES, SAME).tar, curve.tar)
    assert metrics.auc(SCORES, SAME) == definitions.auc(curve)
    assert metrics.eer(SCORES, SAME) == definitions.eer(curve)
    for far in (1.0, 0.1, 0.013, 1e-3):
        assert metrics.tar_at_far(SCORES, SAME, far) == definitions.tar_at_far(curve, [far])[0]


def test_numbers_that_are_seen_by_eye() -> None:
    scores, same = [0.9, 0.8, 0.7, 0.2, 0.1], [1, 1, 0, 1, 0]
    assert metrics.auc(scores, same) == pytest.approx(5 / 6)
    point = metrics.tar_at_far(scores, same, 0.5)
    assert (point.tar, point.far, point.threshold, point.measurable) == (1.0, 0.5, 0.2, True)
    assert not metrics.tar_at_far(scores, same, 0.1).measurable


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_are_taken_as_arrays_are(dtype: torch.dtype) -> None:
    scores = torch.from_numpy(SCORES).to(dtype).requires_grad_()
    expected = metrics.auc(scores.detach().double().numpy(), SAME)
    assert metrics.auc(scores, torch.from_numpy(SAME)) == expected
    assert metrics.auc(scores, torch.from_numpy(SAME).long()) == expected


def test_folds_are_a_number_or_given() -> None:
    by_number = metrics.accuracy(SCORES, SAME, folds=5)
    given = metrics.accuracy(SCORES, SAME, folds=torch.from_numpy(definitions.balanced_folds(SAME, 5)))
    np.testing.assert_array_equal(by_number.accuracy, given.accuracy)
    assert len(metrics.accuracy(SCORES, SAME).accuracy) == 10


def test_the_folds_of_lfw_are_those_of_its_order() -> None:
    same = np.tile(np.repeat([True, False], 300), 10)
    np.testing.assert_array_equal(definitions.balanced_folds(same, 10), definitions.contiguous_folds(6000, 10))


def search() -> dict[str, Any]:
    people = np.concatenate([np.arange(20), np.arange(100, 120)])
    centres = RANDOM.normal(size=(120, 8))
    return {
        "probe": (centres[people] + 0.7 * RANDOM.normal(size=(40, 8))) * RANDOM.uniform(1, 9, (40, 1)),
        "gallery": centres[:30],
        "probe_labels": people,
        "gallery_labels": np.arange(30),
    }


def test_searches_compare_by_cosine() -> None:
    faces = search()
    unit = {name: faces[name] / np.linalg.norm(faces[name], axis=1, keepdims=True) for name in ("probe", "gallery")}
    found = identification.search(**unit, probe_person=faces["probe_labels"], gallery_person=faces["gallery_labels"])
    curve = metrics.cmc(**faces, upto=30)
    np.testing.assert_array_equal(curve, identification.cmc(found, 30)[1])
    assert 0 < metrics.rank_k(**faces) == curve[0] < metrics.rank_k(**faces, k=5) == curve[4] <= curve[29] == 1
    assert metrics.tpir_at_fpir(**faces, fpir=0.1) == identification.open_set(found, [0.1])[0]
    tensors = {name: torch.from_numpy(value) for name, value in faces.items()}
    assert metrics.rank_k(**tensors) == curve[0]


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_lengths_of_embeddings_do_not_count(length: float) -> None:
    faces = search()
    lengths = np.where(np.arange(30) % 2, 1.0, length)[:, None]
    gallery = (faces["gallery"] * lengths).astype(np.float32)
    assert metrics.rank_k(**{**faces, "gallery": gallery}) == metrics.rank_k(**faces)


def test_a_search_without_mates_has_no_rank() -> None:
    assert np.isnan(metrics.rank_k(np.eye(2), np.eye(2), [0, -1], [1, -1]))


def test_rejecting_by_quality() -> None:
    scores, same, quality = [0.9, 0.1, 0.3, 0.0], [1, 1, 0, 0], [1.0, 0.0, 1.0, 0.5]
    curve = metrics.error_versus_reject(scores, same, quality, 0.25, rates=[0, 0.25])
    assert curve.fnmr.tolist() == [0.5, 0.0]  # the pair that was missed is the worst
    assert curve.area == pytest.approx(0.25)
    worse = -torch.tensor(quality)
    turned = metrics.error_versus_reject(scores, same, worse, 0.25, higher_is_better=False, rates=[0, 0.25])
    np.testing.assert_array_equal(turned.fnmr, curve.fnmr)


@pytest.mark.parametrize(
    ("scores", "same", "sentence"),
    [
        ([0.1, 0.2], [1], r"scores \(2,\) and labels \(1,\) must be vectors of one length"),
        ([[0.1, 0.2]], [[1, 0]], r"scores \(1, 2\) and labels \(1, 2\) must be vectors"),
        ([], [], "there are no pairs"),
        ([0.1, float("nan")], [1, 0], r"the score of pair 1 \(from 0\) is not a number"),
        ([0.1, 0.2], [1, -1], "same must be booleans, or 0 and 1, got -1"),
        ([0.1, 0.2], [1, float("nan")], "same must be booleans, or 0 and 1, got nan"),
        ([0.1, 0.2], ["yes", "no"], "same must be booleans, or 0 and 1, got an array of <U3"),
        ([0.1, 0.2], [True, None], "same must be booleans, or 0 and 1, got an array of object"),
        (["a", "b"], [1, 0], "scores must be real numbers, got an array of <U1"),
        ([1j, 0.2], [1, 0], "scores must be real numbers, got an array of complex128"),
        ([[0.1], [0.2, 0.3]], [1, 0], "scores cannot be made an array: its parts differ in shape"),
        ([0.1, 0.2], [1, 1], "none is different"),
        ([0.1, 0.2], [0, 0], "none is same"),
    ],
)
def test_pairs_that_cannot_be_measured_are_refused(scores: Any, same: Any, sentence: str) -> None:
    for metric in (metrics.roc, metrics.auc, metrics.eer, lambda *pairs: metrics.tar_at_far(*pairs, far=0.1)):
        with pytest.raises(DataError, match=sentence):
            metric(scores, same)


def test_rates_folds_and_ranks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="a target FAR is 0, but must lie in"):
        metrics.tar_at_far(SCORES, SAME, 0)
    with pytest.raises(ConfigError, match="a target FAR is 1.5, but must lie in"):
        metrics.VerificationMetrics(far=[0.1, 1.5])
    with pytest.raises(ConfigError, match="folds is 3, but must be at least 2 and at most 2"):
        metrics.accuracy([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], folds=3)
    for folds in (1, 3):
        with pytest.raises(ConfigError, match=f"folds is {folds}, but must be at least 2 and at most 2"):
            metrics.accuracy([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 0, 1, 1], folds=folds)
    with pytest.raises(DataError, match="folds must be integers, got an array of float64"):
        metrics.accuracy([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], folds=[0.0, 1, 0, 1])
    with pytest.raises(DataError, match="2 pairs need as many qualities"):
        metrics.error_versus_reject([0.1, 0.2], [0, 1], [1.0])
    with pytest.raises(DataError, match="quality must be real numbers"):
        metrics.error_versus_reject([0.1, 0.2], [0, 1], ["good", "bad"])
    faces = search()
    with pytest.raises(ConfigError, match="a rank is at least 1"):
        metrics.rank_k(**faces, k=0)
    with pytest.raises(ConfigError, match="a rank is at least 1"):
        metrics.cmc(**faces, upto=0)
    with pytest.raises(ConfigError, match="a target FPIR is 2, but must lie in"):
        metrics.tpir_at_fpir(**faces, fpir=2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"probe": np.zeros(8)}, r"probe must be real numbers \(N, D\), got an array of float64 \(8,\)"),
        ({"gallery": np.zeros((30, 7))}, "their vectors have 8 and 7 numbers"),
        ({"gallery": np.full((30, 8), np.inf)}, r"the vector of gallery entry 0 \(from 0\) is not finite"),
        ({"probe_labels": np.zeros(3, int)}, "the probe set needs one vector and one person for each entry"),
        ({"probe_labels": np.zeros(40)}, "probe_labels must be integers, got an array of float64"),
        ({"probe": np.zeros((0, 8)), "probe_labels": np.zeros(0, int)}, "the probe set is empty"),
    ],
)
def test_searches_that_cannot_be_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        metrics.rank_k(**{**search(), **change})


def test_batches_add_up_to_all_pairs() -> None:
    collected = metrics.VerificationMetrics(far=(0.1, 1e-4))
    for rows in np.array_split(np.arange(400), 7):
        buffer = torch.from_numpy(SCORES[rows])
        collected.update(buffer, SAME[rows])
        buffer.zero_()  # what is kept is no view of it
    result = collected.compute()
    assert list(result) == ["auc", "eer", "tar@far=0.1", "tar@far=0.0001"]
    assert result["auc"] == metrics.auc(SCORES, SAME)
    assert result["eer"] == metrics.eer(SCORES, SAME)
    assert result["tar@far=0.1"] == metrics.tar_at_far(SCORES, SAME, 0.1).tar
    assert np.isnan(result["tar@far=0.0001"])  # 200 different pairs cannot tell
    collected.reset()
    with pytest.raises(DataError, match="there are no pairs"):
        collected.compute()
