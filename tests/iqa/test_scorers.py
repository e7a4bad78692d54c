"""Every scorer keeps the contract; each refuses what it cannot use."""

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facelab.errors import CheckpointError, ConfigError, CorruptImage, DataError
from facelab.inputs import InputSpec
from facelab.iqa import brisque
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.brisque import BRISQUE, grey_as_published
from facelab.iqa.cnniqa import CNNIQA
from facelab.iqa.effective_resolution import EffectiveResolution, ring_power
from facelab.iqa.feature_norm import FeatureNorm
from facelab.iqa.luma import luma
from facelab.iqa.scene_statistics import FEATURES, _shape, contrast_normalised, halved
from facelab.iqa.scored_set import ScoringOptions
from facelab.iqa.sharpness import Sharpness, evenness, noise_variance
from facelab.iqa.table import Table
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores


class Flat(nn.Module):
    """A network whose embedding is the first two pixels, as it was fed."""

    def __init__(self, size: int = 40) -> None:
        super().__init__()
        self.input_spec = InputSpec(size, size, mean=0.0, std=1.0)

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0, 0, :2]


def cnniqa_weights(path: Path, channels: int = 1, **changed: tuple[int, ...]) -> Path:
    shapes = {"conv1": (50, channels, 7, 7), "fc1": (4, 100), "fc2": (3, 4), "fc3": (1, 3)} | changed
    random = torch.Generator().manual_seed(0)
    tensors = {f"{name}.weight": torch.randn(shape, generator=random) * 0.1 for name, shape in shapes.items()}
    save_file(tensors | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}, path)
    return path


def brisque_model(folder: Path, lines: str = "", ranges: Any = None) -> Path:
    """Two support vectors at -1 and at 1 in every feature."""
    vectors = "\n".join(f"{c} " + " ".join(f"{i}:{v}" for i in range(1, FEATURES + 1)) for c, v in ((2, -1), (-3, 1)))
    head = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 2\nrho -40\n"
    folder.mkdir(exist_ok=True)
    (folder / "svm.txt").write_text(lines or f"{head}SV\n{vectors}\n")
    ranges = {"min_": [-1.0] * FEATURES, "max_": [1.0] * FEATURES} if ranges is None else ranges
    (folder / "normalize.pickle").write_bytes(pickle.dumps(ranges))
    return folder


BUILD: dict[str, Callable[[Path], PixelScorer]] = {
    "BRISQUE": lambda folder: BRISQUE(brisque_model(folder / "model")),
    "CNNIQA live": lambda folder: CNNIQA(cnniqa_weights(folder / "grey.safetensors")),
    "CNNIQA koniq": lambda folder: CNNIQA(cnniqa_weights(folder / "colour.safetensors", 3), "koniq"),
    "EffectiveResolution": lambda folder: EffectiveResolution(),
    "FeatureNorm": lambda folder: FeatureNorm(Flat().eval()),
    "Sharpness": lambda folder: Sharpness(),
}


@pytest.fixture(params=BUILD)
def scorer(request: pytest.FixtureRequest, tmp_path: Path) -> PixelScorer:
    return BUILD[request.param](tmp_path)


@pytest.fixture
def pixels() -> Tensor:
    """Five images of 40x40, one of them black and one white."""
    drawn = torch.randint(0, 256, (5, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    drawn[3], drawn[4] = 0, 255
    return drawn


@pytest.mark.parametrize(
    ("scorer", "version", "expected"),
    [
        (Sharpness(), "2 sigma=1", [1.47436, 1.39332, 1.43467, 0.0]),
        (EffectiveResolution(), "1 share=0.9", [5.79158, 5.78285, 5.75515, 7.03766]),
    ],
)
def test_a_version_means_these_scores(scorer: PixelScorer, version: str, expected: list[float]) -> None:
    """Kept tables hold such scores: other ones need another version. Sharp, noisy, of odd width, and faint."""
    row, column = np.mgrid[:48, :40]
    waves = 127.5 + 60 * np.sin(row / 3 + column / 7) + 50 * np.cos(column * row / 90)
    noise = np.random.default_rng(0).integers(-9, 10, (48, 40))
    images = [waves, waves + noise, waves[:, :39], 128 + 2 * np.sin(column / 2)]
    grey = [torch.from_numpy(np.rint(image).clip(0, 255).astype(np.uint8)) for image in images]
    assert scorer.card.version == version
    scores = [float(scorer.score(image.expand(1, 3, -1, -1))) for image in grey]
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_every_registered_scorer_is_tested() -> None:
    ours = {name for name in SCORERS.names() if SCORERS.get(name).__module__.startswith("facelab.")}
    assert {name.split()[0] for name in BUILD} | {"Table"} == ours


def test_scores_are_float32_in_the_declared_range_and_do_not_depend_on_the_batch(
    scorer: PixelScorer, pixels: Tensor
) -> None:
    before = pixels.clone()
    scores = scorer.score(pixels)
    assert scores.dtype == torch.float32
    assert scores.shape == (5,)
    assert not scores.requires_grad
    assert all(scorer.card.allows(score) for score in scores.tolist())
    assert torch.equal(pixels, before)
    assert torch.equal(scores, scorer.score(pixels))
    alone = torch.cat([scorer.score(image[None]) for image in pixels])
    torch.testing.assert_close(alone, scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scorer.score(pixels.contiguous(memory_format=torch.channels_last)), scores)


def test_other_pixels_are_refused(scorer: PixelScorer, pixels: Tensor) -> None:
    with pytest.raises(DataError, match=r"must be uint8 RGB of shape \(B, 3, H, W\), got torch.float32"):
        scorer.score(pixels.float())
    with pytest.raises(DataError, match=r"got torch.uint8 of shape \(3, 40, 40\)"):
        scorer.score(pixels[0])


@pytest.mark.parametrize("name", ["BRISQUE", "CNNIQA live", "EffectiveResolution"])
def test_tiny_images_are_refused(name: str, tmp_path: Path, pixels: Tensor) -> None:
    with pytest.raises(DataError, match=r"takes images of at least (\d+)x\1 pixels, got 7x40; enlarge them"):
        BUILD[name](tmp_path).score(pixels[:, :, :7])


class Broken(PixelScorer):
    card: ClassVar[ScorerCard] = ScorerCard(name="Broken", low=0.0, high=1.0)  # type: ignore[misc]

    def __init__(self, value: float) -> None:
        self.value = value

    def measure(self, pixels: Tensor) -> Tensor:
        return torch.full((len(pixels),), self.value)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_a_score_outside_of_the_declared_range_is_refused(value: float, pixels: Tensor) -> None:
    with pytest.raises(DataError, match=rf"the score {value:g} is outside .*Broken, 0 to 1, higher is better"):
        Broken(value).score(pixels)


class Images:
    """Images of two sizes; one cannot be read."""

    def __init__(self, bad: int = 4) -> None:
        random = np.random.default_rng(0)
        self.pixels = [random.integers(0, 256, (40, 40 + row % 2, 3), dtype=np.uint8) for row in range(11)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"p/{index}.png"

    def fingerprint(self) -> str:
        return "images"

    def read(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if index == self.bad:
            raise CorruptImage(f"{self.name(index)}: is not an image.")
        return self.pixels[index]


@pytest.mark.parametrize(("batch_size", "workers"), [(3, 2), (64, 1)])
def test_a_set_is_scored_in_its_order_with_a_gap_where_it_cannot_be_read(batch_size: int, workers: int) -> None:
    images, seen, threads = Images(), [], torch.get_num_threads()
    options = ScoringOptions(batch_size=batch_size, workers=workers)
    scored = Sharpness().score_set(images, options, lambda done, of: seen.append((done, of)))
    assert np.flatnonzero(np.isnan(scored.values)).tolist() == [4]
    assert scored.failed == ((4, "p/4.png: is not an image."),)
    assert seen[-1] == (11, 11)
    assert torch.get_num_threads() == threads
    for row in (0, 5, 10):
        alone = Sharpness().score(torch.from_numpy(images.pixels[row]).permute(2, 0, 1)[None])
        assert scored.values[row] == pytest.approx(alone.item(), rel=1e-5)


def test_a_refusal_within_a_set_names_the_images() -> None:
    with pytest.raises(DataError, match=r"among \d images from 'p/0\.png' on: the score 2 is outside"):
        Broken(2.0).score_set(Images(), ScoringOptions(batch_size=4, workers=1))


def test_brisque_of_two_support_vectors_by_hand(tmp_path: Path) -> None:
    """A black image has no statistics: it resembles no support vector, and -rho is left."""
    scorer = BRISQUE(brisque_model(tmp_path))
    assert scorer.score(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).item() == 40.0


def test_half_size_is_that_of_opencv() -> None:
    for height, width in ((12, 14), (13, 15), (11, 9)):
        image = np.random.default_rng(0).random((height, width))
        there = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
        np.testing.assert_allclose(halved(torch.from_numpy(image)[None])[0].numpy(), there, atol=1e-6)


def test_brisque_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(brisque, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"pip install 'facelab\[quality\]', .* or take .* data\.quality={Sharpness: {}}\."
    ):
        BRISQUE()
    with pytest.raises(ConfigError, match=r"has no svm\.txt and normalize\.pickle; pip install 'facelab\[quality\]'"):
        BRISQUE(tmp_path)


@pytest.mark.skipif(find_spec("brisque") is None, reason="BRISQUE needs the package brisque (pip install brisque)")
def test_brisque_does_not_import_the_package() -> None:
    code = "import sys; from facelab.iqa.brisque import BRISQUE; BRISQUE(); assert 'brisque' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("hello\n", r"svm\.txt: is not a libsvm model of 36 features"),
        ("svm_type c_svc\nkernel_type rbf\ngamma 1\ntotal_sv 1\nrho 0\nSV\n1 1:2\n", "svm_type is c_svc, but only"),
        ("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\ntotal_sv 9\nrho 0\nSV\n1 1:2\n", "it has 1 of 9 support"),
        ("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\ntotal_sv 1\nrho 0\nSV\n1 37:2\n", "has a feature 37"),
    ],
)
def test_damaged_brisque_models(lines: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        BRISQUE(brisque_model(tmp_path, lines))


@pytest.mark.parametrize("ranges", [[1.0], {"min_": [0.0] * 36}, {"min_": [0.0] * 35, "max_": [1.0] * 36}])
def test_damaged_brisque_ranges(ranges: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"normalize\.pickle: does not hold the ranges of 36 features"):
        BRISQUE(brisque_model(tmp_path, ranges=ranges))


def test_cnniqa_refuses_other_weights(tmp_path: Path) -> None:
    colour = cnniqa_weights(tmp_path / "colour.safetensors", 3)
    with pytest.raises(ConfigError, match=r"conv1\.weight has the shape \(50, 3, 7, 7\), .*grey images: variant live"):
        CNNIQA(colour)
    with pytest.raises(ConfigError, match=r"fc2\.weight has the shape \(3, 5\), but this variant needs \(3, 4\)"):
        CNNIQA(cnniqa_weights(tmp_path / "other.safetensors", fc2=(3, 5)))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match=r"holds conv1\.weight; CNNIQA needs conv1\.bias"):
        CNNIQA(tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="none' does not exist"):
        CNNIQA(tmp_path / "none")
    torch.save({"params": load_file(colour), "code": SCORERS}, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match=r"hostile\.pth' is refused: it may hold only tensors and plain values"):
        CNNIQA(tmp_path / "hostile.pth", "koniq")
    with pytest.raises(ConfigError, match="as_published is about the range of colour images"):
        CNNIQA(colour, "live", as_published=True)


def test_feature_norm_is_the_norm() -> None:
    pixels = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    pixels[0, 0, 0, :2] = torch.tensor([3, 4])
    assert FeatureNorm(Flat().eval()).score(pixels).item() == pytest.approx(5.0)


def test_feature_norm_refuses_networks_that_are_not_ready() -> None:
    with pytest.raises(ConfigError, match="Linear has no input_spec"):
        FeatureNorm(nn.Linear(2, 2).eval())
    with pytest.raises(ConfigError, match=r"Flat is in training mode.*call eval\(\) first"):
        FeatureNorm(Flat())
    with pytest.raises(DataError, match=r"images are 20x20, but the network takes 40x40"):
        FeatureNorm(Flat().eval()).score(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))


def test_sharpness_ignores_contrast_and_brightness() -> None:
    grey = torch.randint(0, 100, (1, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = grey.expand(-1, 3, -1, -1)
    assert Sharpness().score(image * 2 + 30).item() == pytest.approx(Sharpness().score(image).item(), rel=1e-2)


def test_noise_is_estimated_and_white_noise_has_a_flat_spectrum() -> None:
    noise = 9 * torch.randn(8, 112, 112, generator=torch.Generator().manual_seed(0))
    assert noise_variance(noise).mean().item() == pytest.approx(81, rel=0.05)
    power = ring_power(noise).mean(dim=0)
    assert power.mean().item() == pytest.approx(81, rel=0.05)
    assert power[5:].max() / power[5:].min() < 2


@pytest.mark.parametrize("begin", [0, 3, 7])
def test_blocks_are_found_wherever_their_grid_begins(begin: int) -> None:
    random = torch.Generator().manual_seed(0)
    noise = 100 * torch.rand(1, 12, 15, generator=random)
    blocks = noise.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, begin:, begin:]
    assert evenness(blocks).item() < 0.01
    assert evenness(torch.rand(1, 96, 120, generator=random) * 100).item() > 0.9
    assert evenness(torch.full((1, 96, 120), 7.0)).item() == 1.0
    assert evenness(blocks[:, :16, :16]).item() == 1.0  # less than two blocks and a place more


@pytest.mark.parametrize("periods", [4, 9, 20])
def test_effective_resolution_of_one_frequency(periods: int) -> None:
    """Stripes of n periods a side, drawn aslant, need 2 n pixels; the window widens the line by a period."""
    place = torch.arange(96) / 96 * 2 * torch.pi
    wave = torch.cos(periods * (0.6 * place[:, None] + 0.8 * place))
    image = (127 + 100 * wave).round().to(torch.uint8).expand(1, 3, -1, -1)
    assert EffectiveResolution().score(image).item() == pytest.approx(2 * periods, abs=2.0)
    assert EffectiveResolution().score(torch.zeros_like(image)).item() == 0.0


def test_luma_of_pure_colours() -> None:
    pixels = 255 * torch.eye(3, dtype=torch.uint8).view(3, 3, 1, 1)
    torch.testing.assert_close(luma(pixels).flatten() / 255, torch.tensor([0.299, 0.587, 0.114]), rtol=0, atol=1e-4)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="Sharpness sigma is 0"):
        Sharpness(0.0)
    with pytest.raises(ConfigError, match="EffectiveResolution share is 1"):
        EffectiveResolution(1.0)


def test_table_of_ours_and_plain_table(tmp_path: Path) -> None:
    images = Images()
    values = np.arange(11, dtype=np.float32)
    card = ScorerCard(name="Mine", low=0.0, high=10.0)
    write_scores(tmp_path / "ours.csv", images, values, card)
    ours = Table(tmp_path / "ours.csv")
    assert ours.card == card
    assert ours.score_set(images, ScoringOptions()).values.tolist() == values.tolist()
    lines = [f"{images.name(row)},{row}" for row in reversed(range(11))]
    (tmp_path / "plain.csv").write_text("\n".join(["name,score", *lines]))
    plain = Table(tmp_path / "plain.csv", high=10.0, higher_is_better=False)
    assert plain.score_set(images, ScoringOptions()).values.tolist() == values.tolist()
    assert not plain.card.higher_is_better


def test_tables_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("p/0.png,3\np/1.png,x\n")
    with pytest.raises(ConfigError, match=r"plain list of scores; say which direction .*higher_is_better"):
        Table(path)
    with pytest.raises(DataError, match=r"plain\.csv, line 2: the score is 'x', not a number"):
        Table(path, higher_is_better=True)
    path.write_text("p/0.png,3\n")
    with pytest.raises(DataError, match=r"line 1: the score 3 is outside of what was declared \(Table, 0 to 1"):
        Table(path, 0.0, 1.0, True)
    with pytest.raises(DataError, match=r"has no score for 10 of 11 images, the first is 'p/1\.png'"):
        Table(path, higher_is_better=True).score_set(Images(), ScoringOptions())
    write_scores(path, Images(), np.zeros(11, np.float32), ScorerCard(name="Mine"))
    with pytest.raises(ConfigError, match="says itself what its scores mean"):
        Table(path, higher_is_better=True)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        Table(tmp_path / "none.csv")


def test_shapes_of_known_distributions_are_found() -> None:
    """The ratio is 1/2 for a Laplace distribution (shape 1), 2/pi for a normal one (2) and 3/4 for a uniform one."""
    ratio = torch.tensor([0.5, 2 / torch.pi, 0.75, float("nan")], dtype=torch.float64)
    one = torch.ones_like(ratio)
    laplace, normal, uniform, unknown = _shape(one, one, ratio).tolist()
    assert (laplace, normal) == (pytest.approx(1, rel=1e-6), pytest.approx(2, rel=1e-6))
    assert uniform > 99
    assert unknown != unknown


def test_the_grey_of_brisque_is_rounded_as_the_original_rounds() -> None:
    level = torch.arange(256, dtype=torch.uint8)
    pixels = torch.stack([torch.stack([level, level.flip(0), level]), torch.stack([level] * 3)])[..., None]
    expected = [
        [r * (1 / 255) * 0.2125 + g * (1 / 255) * 0.7154 + b * (1 / 255) * 0.0721 for r, g, b in image.T.tolist()]
        for image in pixels[..., 0]
    ]
    assert grey_as_published(pixels)[..., 0].tolist() == expected


def test_an_image_of_one_colour_has_no_contrast_whatever_the_colour() -> None:
    """Rounding would leave signs that depend on the grey, and BRISQUE counts signs."""
    levels = torch.arange(1, 256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 12, 12)
    contrast = contrast_normalised(grey_as_published(levels))
    assert int(contrast[:, 3:-3, 3:-3].count_nonzero()) == 0
    assert bool((contrast[:, 0] > 0).all())  # beside what lies outside


def test_flat_areas_have_the_signs_of_the_original_on_every_processor() -> None:
    """Plain numbers, added in the order of SciPy's convolution."""
    weights = [[math.exp(-(x * x + y * y) / (2 * (7 / 6) ** 2)) for x in range(-3, 4)] for y in range(-3, 4)]
    weights = [[1 / (2 * np.pi * (7 / 6) ** 2) * weight for weight in row] for row in weights]
    total = float(np.sum(np.array(weights)))
    levels = torch.arange(1, 256, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 7, 20)
    levels[:, :, :, 12:] = 0
    grey = grey_as_published(levels)
    expected = []
    for value in grey[:, 3, 3].tolist():
        mean = 0.0
        for row in weights:
            a, b, c, d, *others = (value * (weight / total) for weight in row)
            mean += a + b + c + d
            for other in others:
                mean += other
        expected.append(float(np.sign(value - mean)))
    assert {-1.0, 1.0} <= set(expected)
    assert contrast_normalised(grey)[:, 3, 5].sign().tolist() == expected


@pytest.mark.skipif(find_spec("brisque") is None, reason="BRISQUE needs the package brisque (pip install brisque)")
def test_brisque_of_one_colour_is_the_same_whatever_the_colour() -> None:
    colours = torch.tensor([[0, 0, 0], [90, 90, 90], [7, 130, 201], [255, 255, 255]], dtype=torch.uint8)
    scores = BRISQUE().score(colours[:, :, None, None].expand(-1, -1, 32, 32))
    assert scores.tolist() == pytest.approx([155.8] * 4, abs=0.05)


def test_large_batches_are_cut_up_without_a_trace(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (40, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    scorer = BRISQUE(brisque_model(tmp_path))
    torch.testing.assert_close(scorer.score(pixels)[-3:], scorer.score(pixels[-3:]), rtol=1e-5, atol=1e-5)
