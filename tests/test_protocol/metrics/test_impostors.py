import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.metrics.impostors import count_impostors, most_alike


@pytest.mark.parametrize(("count", "block"), [(1, 3), (50, 7), (10_000, 2048)])
def test_the_most_alike_of_all_pairs_are_those_of_the_whole_matrix(count: int, block: int) -> None:
    generator = np.random.default_rng(0)
    person = generator.integers(-1, 6, 40)
    vectors = generator.standard_normal((40, 8)).astype(np.float32)
    found = most_alike(vectors, person, count, block=block)
    left, right = np.triu_indices(40, 1)
    apart = (person[left] != person[right]) & (person[left] >= 0) & (person[right] >= 0)
    scores = np.einsum("pd,pd->p", vectors[left], vectors[right])[apart]
    assert found.total == len(scores) == count_impostors(person)
    np.testing.assert_allclose(found.score, np.sort(scores)[::-1][:count], rtol=1e-5, atol=1e-5)
    assert (found.left != found.right).all()
    assert (np.minimum(found.left, found.right) >= 0).all()
    best = int(np.argmax(np.where(apart, np.einsum("pd,pd->p", vectors[left], vectors[right]), -np.inf)))
    assert {found.left[0], found.right[0]} == {person[left[best]], person[right[best]]}


def test_one_person_has_no_impostors() -> None:
    with pytest.raises(DataError, match="no two images of different people"):
        most_alike(np.ones((3, 2), np.float32), np.array([4, 4, -1]), 1)
