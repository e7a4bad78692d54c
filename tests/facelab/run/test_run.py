import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.shift import Shift
from facelab.distributed import run_processes
from facelab.engine.loop import StopSignal
from facelab.errors import CheckpointError, ConfigError, CorruptImage, DataError, DivergenceError
from facelab.run.run import RunResult, check_changes
from facelab.run.run_folder import claimed
from facelab.run.settings import load_config
from facelab.run.tracking import write_settings
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.manifest import read_manifest, write_manifest
from facelab.weights.snapshot import read_model, read_rows
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
PAIRS = "evaluation.protocols={synthetic: {SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40}}}"
SOURCE = "data.source.SyntheticFaces"
UPDATES_PER_EPOCH = 4


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor that training moves."""
    training = read_tree(last(run) / "training.pt")
    flat = {**training["mode"]["network"], **read_rows(last(run), 0, 8)}
    for index, state in training["optimization"]["optimizers"][0].items():
        flat |= {f"{index}.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return flat


def assert_equal_states(left: Path, right: Path) -> None:
    expected, found = state_of(left), state_of(right)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_everything(tmp_path: Path, run_tiny: Run) -> None:
    result = run_tiny(tmp_path / "run", "training.epochs=8", PAIRS, "tensorboard=true")
    assert result.progress.complete
    assert result.reports[0].protocol == "synthetic"
    logged = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    found = [line["loss"] for line in logged if "loss" in line]
    assert found[-1] < 0.7 * found[0]
    assert any("synthetic/accuracy" in line for line in logged)
    assert list((result.folder / "tensorboard").iterdir())
    assert yaml.safe_load((result.folder / "config.yaml").read_text())["head"] == {
        "CosFace": {"margin": 0.1, "scale": 16}
    }
    assert {"facelab", "torch", "git_commit", "cuda"} <= json.loads(
        (result.folder / "environment.json").read_text()
    ).keys()
    assert CheckpointStore(result.folder / "checkpoints").index().best


def test_a_run_repeats_bit_for_bit(tmp_path: Path, run_tiny: Run) -> None:
    for name in ("a", "b"):
        run_tiny(tmp_path / name, f"data.workers={1 if name == 'a' else 3}")
    assert_equal_states(tmp_path / "a", tmp_path / "b")
    run_tiny(tmp_path / "c", "seed=1")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer.name=adamw", "optimizer.lr=0.01", "head=AdaFace"),
        ("head=CurricularFace", "mode.conventional.ema=0.9", "training.accumulate=2"),
        ("training.precision=bf16", "backbone.MobileFaceNet.width=0.25"),
        ("optimizer.name=adamw", "optimizer.lr=0.01", "head=UniFace"),
        ("head=ElasticFace", "classifier={SubCenter: {rows_per_class: 2}}"),
    ],
    ids=["sgd", "adamw-adaface", "curricular-ema-accumulate", "bf16", "adamw-uniface", "elastic-sub-centres"],
)
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, overrides: tuple[str, ...]
) -> None:
    settings = (*overrides, "checkpoint.keep_every_epochs=1", "training.log_every=3")  # the cut is between two logs
    run_tiny(tmp_path / "whole", *settings)
    cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    result = run_tiny(tmp_path / "cut", *settings, resume=True)
    assert result.progress.complete
    assert_equal_states(tmp_path / "whole", tmp_path / "cut")
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_half_a_run_is_never_compared(tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StopSignal, "agreed", lambda _: signal.SIGTERM)
    with pytest.raises(pytest.fail.Exception, match="signal 15 from outside stopped the run in '.*whole'"):
        run_tiny(tmp_path / "whole")


def test_evaluation_leaves_training_as_it_is(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "a")
    run_tiny(tmp_path / "b", PAIRS, "evaluation.every_updates=1")
    assert_equal_states(tmp_path / "a", tmp_path / "b")


def test_the_average_is_exported(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "mode.conventional.ema=0.5")
    training = read_tree(last(tmp_path / "run") / "training.pt")["mode"]
    exported = read_model(last(tmp_path / "run"))
    name = next(name for name in exported if name.endswith("weight"))
    assert torch.equal(exported[name], training["ema"][name])
    assert not torch.equal(exported[name], training["network"][name])


def test_accumulation_makes_as_many_updates(tmp_path: Path, run_tiny: Run) -> None:
    result = run_tiny(tmp_path / "run", "training.accumulate=4")
    assert result.progress.update == 3 * UPDATES_PER_EPOCH


def test_changed_settings_are_listed_and_refused(tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    run_tiny(tmp_path / "whole", "checkpoint.keep_every_epochs=1")
    cut = cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    with pytest.raises(
        ConfigError, match=r"other settings: optimizer.lr: 0.05 -> 0.2; seed: 0 -> 3. Take them back, or"
    ):
        run_tiny(cut, "optimizer.lr=0.2", "seed=3", resume=True)
    assert run_tiny(cut, "optimizer.lr=0.2", "seed=3", resume=True, allow_changes=True).progress.complete


def test_a_setting_that_is_newer_than_the_run_is_no_change(tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    run_tiny(tmp_path / "whole", "checkpoint.keep_every_epochs=1")
    cut = cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    tree = yaml.safe_load((cut / "config.yaml").read_text())
    del tree["training"]["clip"], tree["schedule"]["compat"], tree["data"]["online_quality"]
    (cut / "config.yaml").write_text(yaml.safe_dump(tree))
    assert run_tiny(cut, resume=True).progress.complete
    assert_equal_states(tmp_path / "whole", cut)
    tree["schedule"]["name"] = "gone"
    (cut / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="schedule.name: 'gone' -> 'cosine'"):
        run_tiny(cut, resume=True)


def test_a_plugin_that_is_imported_meanwhile_is_no_change(tmp_path: Path) -> None:
    """Options that are left out are written down once the transform is known."""
    config = load_config("conventional", ["data.augment.of_a_plugin={pixels: 2}"])
    TRANSFORMS.names()
    TRANSFORMS.register("of_a_plugin")(type("Later", (Shift,), {}))
    try:
        known = load_config("conventional", ["data.augment.of_a_plugin={pixels: 2}"])
        assert known.data.augment["of_a_plugin"] == {"probability": 0.5, "pixels": 2}
        for then, now in ((known, config), (config, known)):
            write_settings(tmp_path, then.tree())
            check_changes(tmp_path, now, allow=False)
    finally:
        del TRANSFORMS._classes["of_a_plugin"]


def test_settings_that_cannot_matter_may_change(tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    run_tiny(tmp_path / "whole", "checkpoint.keep_every_epochs=1")
    cut = cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_tiny(cut, "data.workers=2", "training.log_every=1", resume=True).progress.complete
    assert_equal_states(tmp_path / "whole", cut)


def test_a_run_is_not_overwritten(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "training.epochs=1")
    with pytest.raises(ConfigError, match="already holds a run; go on with it by --resume"):
        run_tiny(tmp_path / "run", "training.epochs=1")


def test_two_runs_do_not_share_a_folder(tmp_path: Path, run_tiny: Run) -> None:
    with (
        claimed(tmp_path / "run", tmp_path, lambda _: None),
        pytest.raises(ConfigError, match="'.*run' is in use by process"),
    ):
        run_tiny(tmp_path / "run", resume=True)


def test_a_run_in_its_folder_is_locked_and_leaves_no_lock(
    tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facelab.run.tracking import MetricsLog

    seen = []
    monkeypatch.setattr(MetricsLog, "on_end", lambda log, _: seen.append((log.path.parent / ".lock").is_file()))
    run_tiny(tmp_path / "run", "training.epochs=1")
    assert seen == [True]
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_damaged_checkpoint_is_refused_and_an_older_one_can_be_chosen(tmp_path: Path, run_tiny: Run) -> None:
    run, settings = tmp_path / "run", ("training.epochs=2", "checkpoint.keep_every_epochs=1")
    run_tiny(run, *settings)
    whole = state_of(run)
    path = last(run) / "training.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"training.pt' is damaged.* go on from one by --resume step-00000004"):
        run_tiny(run, *settings, resume=True)
    assert run_tiny(run, *settings, resume=True, checkpoint="step-4").progress.complete
    again = state_of(run)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert len(losses(run)) == 4
    # As somebody would write a state who wants to be believed: its hashes are right.
    first = run / "checkpoints" / "step-00000004"
    for key, value in {"mode": [], "optimization": 7, "window": "none"}.items():
        torch.save(read_tree(first / "training.pt") | {key: value}, first / "training.pt")
        manifest = read_manifest(first)
        (first / "manifest.json").unlink()
        write_manifest(first, manifest["update"], manifest["score"])
        with pytest.raises(CheckpointError, match=r"no run can go on from the state in the checkpoint '.*0004' \("):
            run_tiny(run, *settings, resume=True, checkpoint="step-4")


def test_a_checkpoint_that_is_not_there_is_no_new_run(tmp_path: Path, run_tiny: Run) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint 'step-4'. There are: none"):
        run_tiny(tmp_path / "run", resume=True, checkpoint="step-4")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_run_without_its_index_goes_on(tmp_path: Path, run_tiny: Run, cut_back: Cut, content: str | None) -> None:
    run_tiny(tmp_path / "whole", "checkpoint.keep_every_epochs=1")
    cut = cut_back(tmp_path / "whole", tmp_path / "cut", UPDATES_PER_EPOCH)
    index = cut / "checkpoints" / "index.json"
    index.unlink() if content is None else index.write_text(content)
    with pytest.raises(ConfigError, match="already holds a run"):
        run_tiny(cut)
    assert run_tiny(cut, resume=True).progress.complete
    assert_equal_states(tmp_path / "whole", cut)
    assert len(losses(cut)) == len(losses(tmp_path / "whole")), "it started anew"


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path: Path, run_tiny: Run) -> None:
    diverging = ("optimizer.lr=1e9", "schedule.name=constant", "schedule.warmup_epochs=1", "schedule.warmup_start=0.0")
    with pytest.raises(DivergenceError, match=r"not finite in update \d+; the parameters are as they were before it"):
        run_tiny(tmp_path / "run", *diverging, "checkpoint.every_updates=1")
    good = read_model(last(tmp_path / "run"))
    assert good
    assert all(torch.isfinite(tensor).all() for tensor in good.values())


@pytest.mark.parametrize(
    ("overrides", "error", "sentence"),
    [
        (("training.batch_size=100",), ConfigError, r"batch_size.* is 100, but .* only 64 images"),
        (("data.size=64", f"{SOURCE}.size=32"), ConfigError, "option 'size' is 32, but 64 follows from the rest"),
        (("head=Arcface",), ConfigError, "unknown head 'Arcface'. Did you mean 'ArcFace'"),
        (("head={ArcFace: {marginarc: 1}}",), ConfigError, "has no option 'marginarc'. Did you mean 'margin'"),
        (("data.sampler=Shufle",), ConfigError, "unknown sampler 'Shufle'. Did you mean 'Shuffle'"),
        (("plugins=[no_such_module]",), ConfigError, "plugins: cannot import 'no_such_module'"),
        (("training.amp=apex", "training.precision=fp16"), ConfigError, "apex"),
        (("evaluation.protocols={lfw: {LFW: {root: nowhere, pairs: nowhere.txt}}}",), DataError, "nowhere"),
    ],
)
def test_bad_settings_stop_before_training(
    tmp_path: Path, run_tiny: Run, overrides: tuple[str, ...], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        run_tiny(tmp_path / "run", *overrides)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damaged_list(tmp_path: Path) -> str:
    """Overrides that train from a folder in which one JPEG is damaged."""
    import cv2

    from facelab.data.synthetic.source import SyntheticFaces

    faces = SyntheticFaces(identities=4, per_identity=8, size=32)
    for number in range(len(faces)):
        path = tmp_path / "images" / f"p{faces.labels[number]}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), faces.read(number)[:, :, ::-1])
    (tmp_path / "images" / "p2" / "17.jpg").write_bytes(b"\xff\xd8 damaged")
    return f"data.source={{ImageFolder: {{root: {tmp_path / 'images'}}}}}"


def test_a_corrupt_image_stops_with_its_name(tmp_path: Path, run_tiny: Run, damaged_list: str) -> None:
    with pytest.raises(CorruptImage, match=r"17\.jpg"):
        run_tiny(tmp_path / "run", damaged_list)


def test_a_corrupt_image_can_be_skipped_and_is_reported(tmp_path: Path, run_tiny: Run, damaged_list: str) -> None:
    run_tiny(tmp_path / "run", damaged_list, "data.on_corrupt=skip")
    lines = (tmp_path / "run" / "corrupt-00000.jsonl").read_text().splitlines()
    assert any("17.jpg" in line for line in lines)


def train_in_process(folder: str, resume: bool, head: str) -> int:
    """Runs in each of several processes."""
    from rich.console import Console

    from facelab.run.run import run_training
    from facelab.run.settings import load_config

    settings = [f"head={head}", "optimizer.name=adamw", "checkpoint.keep_every_epochs=1", PAIRS]
    config = load_config(str(Path(__file__).parents[2] / "tiny_run.yaml"), settings)
    return run_training(config, Path(folder), Console(quiet=True), resume=resume).progress.update


@pytest.mark.slow
@pytest.mark.parametrize("head", ["AdaM-Softmax", "SphereFace2"])
def test_two_processes_resume_on_two_and_on_one(tmp_path: Path, cut_back: Cut, run_tiny: Run, head: str) -> None:
    whole = tmp_path / "whole"
    assert run_processes(train_in_process, 2, str(whole), False, head) == [12, 12]
    assert len(list(last(whole).glob("process-*.pt"))) == 2

    cut = cut_back(whole, tmp_path / "cut", UPDATES_PER_EPOCH)
    assert run_processes(train_in_process, 2, str(cut), True, head) == [12, 12]
    assert_equal_states(whole, cut)

    alone = cut_back(whole, tmp_path / "alone", UPDATES_PER_EPOCH)
    result = run_tiny(
        alone, f"head={head}", "optimizer.name=adamw", "checkpoint.keep_every_epochs=1", PAIRS, resume=True
    )
    assert result.progress.complete
    assert len(list(last(alone).glob("process-*.pt"))) == 1


def test_images_of_another_size_are_refused_or_resized(tmp_path: Path, run_tiny: Run, damaged_list: str) -> None:
    (tmp_path / "images" / "p2" / "17.jpg").unlink()
    with pytest.raises(DataError, match="images are 32x32, but the network takes 48x48; set data.size, align"):
        run_tiny(tmp_path / "run", damaged_list, "data.size=48")
    assert run_tiny(tmp_path / "resized", damaged_list, "data.size=48", "data.resize=true").progress.complete


def test_photos_are_trained_on_only_if_any_photo_may_be(tmp_path: Path, run_tiny: Run, damaged_list: str) -> None:
    import cv2
    import numpy as np

    photo = tmp_path / "images" / "p2" / "17.jpg"
    cv2.imwrite(str(photo), np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"17\.jpg is 32x40, but 32x32 is wanted, .*no aligned face .*data.any_photo: true"
    ):
        run_tiny(tmp_path / "run", damaged_list, "data.resize=true")
    with pytest.raises(ConfigError, match="any_photo says what may be resized; it goes with resize"):
        run_tiny(tmp_path / "run", damaged_list, "data.any_photo=true")
    assert run_tiny(tmp_path / "any", damaged_list, "data.resize=true", "data.any_photo=true").progress.complete
