"""Pictures of mistakes: small, of the right rows, with names and quality."""

from collections.abc import Callable

import cv2
import numpy as np

from facelab.data.base import ImageSet, Pixels
from facelab.errors import CorruptImage
from facelab.test_protocol.base import Embeddings, Mistake
from facelab.test_protocol.report.mistake_pictures import with_pictures

MakeImages = Callable[[list[Pixels]], ImageSet]
RED, BLUE = (np.full((30, 20, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))


def decoded(jpeg: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)[:, :, ::-1]


def test_pictures_are_those_of_the_rows(make_images: MakeImages) -> None:
    images = make_images([RED, BLUE, np.zeros((448, 300, 3), np.uint8)])
    embeddings = Embeddings(np.zeros((3, 2), np.float32), quality_scores=np.array([0.5, 0.25, 1.0], np.float32))
    first, second = with_pictures(
        (Mistake("false match", 1, 0, 0.5), Mistake("false non-match", 0, 2, 0.1)), images, embeddings
    )
    assert first.score == 0.5
    assert first.pictures is not None
    assert second.pictures is not None
    assert [picture.name for picture in first.pictures] == ["array[1]", "array[0]"]
    assert [picture.quality for picture in first.pictures] == [0.25, 0.5]
    np.testing.assert_allclose(decoded(first.pictures[0].jpeg), BLUE, atol=4)
    np.testing.assert_allclose(decoded(first.pictures[1].jpeg), RED, atol=4)
    assert decoded(second.pictures[1].jpeg).shape == (112, 75, 3)


def test_an_image_that_is_gone_has_no_picture(make_images: MakeImages) -> None:
    class Gone(type(make_images([]))):  # type: ignore[misc]
        def read(self, index: int) -> Pixels:
            raise CorruptImage(f"{self.location(index)}: cannot be read.")

    (mistake,) = with_pictures((Mistake("false match", 0, 1, 0.5),), Gone([RED, BLUE]))
    assert mistake.pictures is not None
    assert [picture.jpeg for picture in mistake.pictures] == [b"", b""]
    assert mistake.pictures[0].quality is None
