"""The extractor: right values, nothing left disturbed, cache, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.inputs import normalise
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.extraction.forward import model_hash


def expected(net: Any, images: Any, flip: bool = False) -> np.ndarray:
    stacked = np.stack([image[:, ::-1] if flip else image for image in images.pixels])
    pixels = torch.from_numpy(stacked.copy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        return net(normalise(pixels, net.input_spec)).numpy()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("channels_last", [True, False])
def test_values_in_order(tiny_net: Any, tiny_images: Any, batch_size: int, channels_last: bool) -> None:
    result = embed(tiny_net, tiny_images, batch_size=batch_size, flip=True, channels_last=channels_last, workers=3)
    assert result.values.dtype == np.float32
    np.testing.assert_allclose(result.values, expected(tiny_net, tiny_images), atol=1e-5)
    assert result.flipped is not None
    np.testing.assert_allclose(result.flipped, expected(tiny_net, tiny_images, flip=True), atol=1e-5)


def test_bf16_comes_back_as_float32_and_is_near(tiny_net: Any, tiny_images: Any) -> None:
    full, half = (embed(tiny_net, tiny_images, precision=p).values for p in ("fp32", "bf16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.05


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05), ("fp16", 0.01)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_gpu_gives_the_same(
    channels_last: bool, precision: Any, tolerance: float, make_net: Any, tiny_images: Any, gpu: torch.device
) -> None:
    wanted = embed(make_net().eval(), tiny_images, flip=True)
    options: Any = {"precision": precision, "channels_last": channels_last, "flip": True}
    found = embed(make_net().eval().to(gpu), tiny_images, device=gpu, batch_size=4, **options)
    np.testing.assert_allclose(found.values, wanted.values, atol=tolerance)
    np.testing.assert_allclose(found.flipped, wanted.flipped, atol=tolerance)


def test_training_is_not_disturbed(tiny_net: Any, tiny_images: Any) -> None:
    tiny_net.train()
    tiny_net.norm.eval()  # a frozen layer inside a network that trains
    before = {name: value.clone() for name, value in tiny_net.state_dict().items()}
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    result = embed(tiny_net, tiny_images)
    assert torch.equal(torch.rand(3), wanted)
    assert tiny_net.training
    assert tiny_net.dropout.training
    assert not tiny_net.norm.training
    assert all(torch.equal(value, before[name]) for name, value in tiny_net.state_dict().items())
    np.testing.assert_allclose(result.values, expected(tiny_net.eval(), tiny_images), atol=1e-5)


def test_modes_come_back_after_an_error(tiny_net: Any, make_images: Callable[..., Any]) -> None:
    tiny_net.train()
    with pytest.raises(DataError, match="the image is 8x8, but the network takes 16x16"):
        embed(tiny_net, make_images([np.zeros((8, 8, 3), np.uint8)]))
    assert tiny_net.training


def test_progress_reaches_the_end(tiny_net: Any, tiny_images: Any) -> None:
    seen: list[tuple[int, int]] = []
    embed(tiny_net, tiny_images, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_larger_than_the_set_and_than_a_block(
    cached: bool, tiny_net: Any, tiny_images: Any, tmp_path: Path
) -> None:
    folder = tmp_path if cached else None
    large = embed(tiny_net, tiny_images, batch_size=2000, flip=True, cache=folder)
    small = embed(tiny_net, tiny_images, batch_size=4, flip=True)
    np.testing.assert_allclose(large.values, small.values, atol=1e-5)
    np.testing.assert_allclose(large.flipped, small.flipped, atol=1e-5)


def test_cache_serves_the_same_model_and_no_other(
    tiny_net: Any, make_net: Callable[..., Any], tiny_images: Any, tmp_path: Path
) -> None:
    first = embed(tiny_net, tiny_images, flip=True, cache=tmp_path)
    calls = tiny_net.calls
    again = embed(tiny_net, tiny_images, flip=True, cache=tmp_path)
    assert tiny_net.calls == calls
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.flipped, again.flipped)
    fresh = embed(tiny_net, tiny_images, flip=True)  # not through a cache
    np.testing.assert_array_equal(first.values, fresh.values)
    np.testing.assert_array_equal(first.flipped, fresh.flipped)
    embed(tiny_net, tiny_images, flip=False, cache=tmp_path)  # another setting
    other = make_net().eval()
    with torch.no_grad():
        other.linear.bias[0] += 1.0
    assert model_hash(other) != model_hash(tiny_net)
    changed = embed(other, tiny_images, flip=True, cache=tmp_path)
    np.testing.assert_allclose(changed.values[:, 0], first.values[:, 0] + 1.0, atol=1e-5)
    assert len(list(tmp_path.glob("*/manifest.json"))) == 3
    assert not list(tmp_path.glob("*/.*"))


def test_other_sizes_are_refused_or_resized(tiny_net: Any, make_images: Callable[..., Any]) -> None:
    images = make_images([np.full((32, 32, 3), 90, np.uint8), np.full((8, 8, 3), 90, np.uint8)])
    with pytest.raises(DataError, match=r"array\[0\]: the image is 32x32, but the network takes 16x16; .*resize=true"):
        embed(tiny_net, images)
    result = embed(tiny_net, images, resize=True)
    np.testing.assert_allclose(result.values[0], result.values[1], atol=1e-5)


def test_photos_are_resized_only_where_any_photo_may_be(tiny_net: Any, make_images: Callable[..., Any]) -> None:
    for shape, said in ((16, 20), "16x20"), ((7, 7), "7x7"), ((65, 65), "65x65"):
        images = make_images([np.zeros((16, 16, 3), np.uint8), np.zeros((*shape, 3), np.uint8)])
        sentence = (
            rf"array\[1\]: the image is {said}, but the network takes 16x16, and that is no aligned face .*--any-photo"
        )
        with pytest.raises(DataError, match=sentence):
            embed(tiny_net, images, resize=True)
        assert embed(tiny_net, images, resize=True, any_photo=True).values.shape == (2, 8)
    with pytest.raises(ConfigError, match="any_photo says what may be resized; it goes with resize"):
        embed(tiny_net, images, any_photo=True)


def test_embeddings_that_are_not_finite_name_the_image(tiny_images: Any) -> None:
    class Broken(nn.Module):
        def __init__(self, spec: Any) -> None:
            super().__init__()
            self.input_spec = spec

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            mean = image.mean(dim=(1, 2, 3))
            return torch.stack([mean, mean / (mean != mean[2])], dim=1)

    from facelab.inputs import InputSpec

    with pytest.raises(DataError, match=r"array\[2\]: its embedding is not finite"):
        embed(Broken(InputSpec(16, 16)), tiny_images)


def test_unreadable_image_names_itself(tiny_net: Any, small_lfw: tuple[Path, Path]) -> None:
    from facelab.data.formats.images import PathImages

    root, _ = small_lfw
    bad = root / "Person_1" / "Person_1_0002.jpg"
    bad.write_bytes(b"not an image")
    images = PathImages(root, ["Person_1/Person_1_0001.jpg", "Person_1/Person_1_0002.jpg"])
    with pytest.raises(CorruptImage, match=r"Person_1_0002\.jpg"):
        embed(tiny_net, images)


def test_refused_options(tiny_net: Any, tiny_images: Any, make_images: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="Linear has no input_spec"):
        embed(nn.Linear(1, 1), tiny_images)
    with pytest.raises(ConfigError, match="batch_size is 0, but must be a whole number of images, at least 1"):
        embed(tiny_net, tiny_images, batch_size=0)
    with pytest.raises(ConfigError, match="precision is 'fp8'"):
        embed(tiny_net, tiny_images, precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no image to embed"):
        embed(tiny_net, make_images([]))


def test_shared_cores_change_nothing(tiny_net: Any, make_images: Callable[..., Any]) -> None:
    random = np.random.default_rng(2)
    images = make_images([random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(70)])
    alone = embed(tiny_net, images, batch_size=40, flip=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tiny_net.calls = 0
        shared = embed(tiny_net, images, batch_size=40, flip=True)
        assert torch.get_num_threads() == 3
        assert tiny_net.calls == 2 * (3 + 3)  # 40 and 30 images, plain and mirrored, in three shares each
        tiny_net.sequential_forward = True
        tiny_net.calls = 0
        embed(tiny_net, images, batch_size=40)
        assert tiny_net.calls == 2
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(shared.values, alone.values, atol=1e-6)
    assert shared.flipped is not None
    assert alone.flipped is not None
    np.testing.assert_allclose(shared.flipped, alone.flipped, atol=1e-6)


def test_no_gradient_mode_leaks_out_of_an_evaluation(tiny_net: Any, tiny_images: Any) -> None:
    embed(tiny_net, tiny_images, precision="bf16")
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")
    tiny_net.train()
    tiny_net(torch.rand(4, 3, 16, 16)).sum().backward()  # nothing of the evaluation was kept in the network
