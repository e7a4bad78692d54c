"""Images that cannot be read: refused, left as zeros, or skipped, and always named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.inputs import InputSpec
from facelab.test_protocol.extraction.embed import embed


@pytest.fixture
def damaged(tiny_images: Any, make_images: Callable[..., Any]) -> Any:
    """The tiny images, of which the third and the last cannot be read."""
    return make_images(tiny_images.pixels, {2, 10})


def test_error_is_the_default(tiny_net: Any, damaged: Any) -> None:
    with pytest.raises(CorruptImage, match=r"array\[2\] is broken"):
        embed(tiny_net, damaged)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_zeros_stand_for_what_cannot_be_read(tiny_net: Any, tiny_images: Any, damaged: Any, batch_size: int) -> None:
    whole = embed(tiny_net, tiny_images, flip=True, batch_size=batch_size)
    result = embed(tiny_net, damaged, flip=True, batch_size=batch_size, on_corrupt="zero")
    assert result.failed == ((2, "array[2] is broken."), (10, "array[10] is broken."))
    assert result.skipped is None
    for found, expected in ((result.values, whole.values), (result.flipped, whole.flipped)):
        assert found is not None
        assert expected is not None
        assert not found[[2, 10]].any()
        kept = np.delete(np.arange(11), [2, 10])
        np.testing.assert_array_equal(found[kept], expected[kept])


def test_skipped_images_are_marked(tiny_net: Any, damaged: Any) -> None:
    result = embed(tiny_net, damaged, on_corrupt="skip")
    assert result.skipped is not None
    assert np.flatnonzero(result.skipped).tolist() == [2, 10]
    part = result.part(slice(2, 5))
    assert part.skipped is not None
    assert part.skipped.tolist() == [True, False, False]
    assert part.failed == ((0, "array[2] is broken."),)


def test_nothing_failed_leaves_no_trace(tiny_net: Any, tiny_images: Any) -> None:
    result = embed(tiny_net, tiny_images, on_corrupt="skip")
    assert result.skipped is None
    assert result.failed == ()


def test_a_set_without_a_readable_image_is_refused(tiny_net: Any, tiny_images: Any, make_images: Any) -> None:
    images = make_images(tiny_images.pixels, set(range(11)))
    with pytest.raises(DataError, match=r"none of the 11 images can be read, the first: array\[0\] is broken"):
        embed(tiny_net, images, on_corrupt="zero")


def test_another_size_is_no_corrupt_image(tiny_net: Any, make_images: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="the image is 8x8"):
        embed(tiny_net, make_images([np.zeros((8, 8, 3), np.uint8)]), on_corrupt="skip")


def test_a_black_image_that_the_network_cannot_embed_is_no_obstacle(damaged: Any) -> None:
    class Normalising(nn.Module):
        input_spec = InputSpec(16, 16, mean=0.0, std=1.0)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            pooled = image.mean(dim=(2, 3))
            return pooled / pooled.norm(dim=1, keepdim=True)  # 0 / 0 for the black image

    assert np.isfinite(embed(Normalising(), damaged, on_corrupt="zero").values).all()


def test_the_cache_serves_every_policy(tiny_net: Any, damaged: Any, tmp_path: Path) -> None:
    first = embed(tiny_net, damaged, on_corrupt="zero", batch_size=4, cache=tmp_path)
    calls = tiny_net.calls
    again = embed(tiny_net, damaged, on_corrupt="skip", batch_size=4, cache=tmp_path)
    assert tiny_net.calls == calls
    assert again.failed == first.failed
    np.testing.assert_array_equal(first.values, again.values)
    with pytest.raises(CorruptImage, match=r"array\[2\] is broken\. So it was when .*\.npz was written; delete"):
        embed(tiny_net, damaged, batch_size=4, cache=tmp_path)


def test_unknown_policy(tiny_net: Any, damaged: Any) -> None:
    with pytest.raises(ConfigError, match=r"on_corrupt.*error, zero, skip"):
        embed(tiny_net, damaged, on_corrupt="ignore")  # type: ignore[arg-type]
