"""Which copies stay."""

import numpy as np

from facelab.doctor.duplicates import find_duplicates

HASHES = np.zeros((6, 4), np.uint64)
LABELS = np.array([0, 0, 0, 1, 1, 2])


def pairs(*rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.array(rows, np.int64).reshape(-1, 2).T
    return left, right


def test_of_one_person_the_best_copy_stays() -> None:
    worth = np.array([0.1, 0.9, 0.5, 0, 0, 0], np.float32)
    within, between = find_duplicates(HASHES, LABELS, pairs((0, 1), (1, 2)), worth)
    assert within.suspects.tolist() == [0, 2]
    assert set(within.beside.tolist()) == {1}
    assert not len(between.rows)


def test_without_a_model_all_copies_under_two_labels_leave() -> None:
    within, between = find_duplicates(HASHES, LABELS, pairs((0, 3), (0, 1)), np.arange(6, dtype=np.float32))
    assert within.suspects.tolist() == [0]
    assert between.suspects.tolist() == [1, 3]
    assert len(between.rows) == 1


def test_the_copy_that_is_like_its_label_stays() -> None:
    support = np.array([0.7, 0.7, 0.7, 0.1, 0.1, np.nan], np.float32)
    _, between = find_duplicates(HASHES, LABELS, pairs((0, 3), (3, 5)), np.ones(6, np.float32), support, 0.4, 0.3)
    assert between.suspects.tolist() == [3, 5]
    assert between.beside.tolist() == [0, 0]


def test_if_no_copy_is_clearly_like_its_label_all_leave() -> None:
    for support in ([0.7, 0, 0, 0.6, 0, 0], [0.3, 0, 0, -0.2, 0, 0]):
        found = find_duplicates(
            HASHES, LABELS, pairs((0, 3)), np.ones(6, np.float32), np.array(support, np.float32), 0.4, 0.3
        )
        assert found[1].suspects.tolist() == [0, 3]


def test_no_pairs_no_findings() -> None:
    assert [len(finding.rows) for finding in find_duplicates(HASHES, LABELS, pairs(), np.ones(6, np.float32))] == [0, 0]
