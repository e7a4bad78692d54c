"""The settings of a run: what a YAML file may say, with defaults, checked before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from facelab.catalogue import Spec
from facelab.config import Strict, Tree, merge, parse_overrides, read_config, validate
from facelab.engine.compilation import Compile
from facelab.engine.optimization import AmpBackend, Clip, OptimizerConfig, Precision
from facelab.engine.replica import Compression, Parallel
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import ConfigError, did_you_mean
from facelab.head.class_precision import ClassPrecision
from facelab.quality.card import ScoreSource
from facelab.run.data_settings import DataSettings
from facelab.run.shipped import shipped_configs

RUN_SPECS = (
    "mode",
    "backbone",
    "adapter",
    "gate",
    "head",
    "classifier",
    "sample_weight",
    "data.source",
    "data.sampler",
    "data.quality",
    "evaluation.quality.*",
    "evaluation.protocols.*",
)
SPEC_PATHS = (*RUN_SPECS, *(f"{front}.{path}" for front in ("base", "variants.*") for path in RUN_SPECS))
LONGEST = 200  # letters of the changes that a message shows
"""Settings that name one registered thing, so that another name replaces the old one with all its options."""

VARIANTS, COLUMNS = STUDY_KEYS = ("variants", "columns")
"""With the first key a file is a study, several runs, see `facelab.run.study`; the other goes with it."""


class TrainingSettings(Strict):
    """The ``training`` section.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images in one update of the optimiser, over all processes and accumulated steps.
        accumulate: Forward passes that make one update; the loss is divided by it.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``, the fastest one for the network on this device.
        class_precision: Format of the class rows and embeddings in the products that make the logits, which are added
            in fp32: ``fp32``, ``bf16``, or on a GPU ``tf32``. Rows and gradients stay fp32.
        class_skip: Share of the gradient, 0 to 1, that may be left out where chunks of many classes hardly matter, to
            spare their part of the backward pass; 0 leaves out nothing.
        class_compile: Whether passes over chunks of many classes are compiled (`torch.compile`, Triton), on a GPU with
            a C compiler beside it.
        amp: ``native``, or ``apex`` where NVIDIA apex is installed.
        clip_norm: Largest gradient norm, or null.
        clip: Which gradients that norm is of, and which are clipped: ``all`` together, or those of the ``network``
            alone, as InsightFace's and PETALface's programs do; class rows then move as they would without clipping.
        parallel: How several processes share the network: each has all of it (``ddp``), or a part of every parameter,
            its gradient and its optimiser state, gathered block by block as they are needed (``fsdp``: large ViTs and
            Swins). Class rows are shared out in both.
        gradient_compression: In which format processes exchange the gradients of the network: ``none`` (as they are),
            ``fp16`` (as InsightFace's program does) or ``bf16``, in half of the bytes. Class rows exchange none.
        compile: Whether the network's forward and backward pass are compiled (`torch.compile`): ``off``, ``default``,
            or ``max``, which tries several kernels for each product and takes minutes to begin.
        cuda_graph: Whether a GPU gets a whole step at once, as a CUDA graph; for one GPU, where launching kernels takes
            longer than they do.
        tf32: Whether a GPU may round what is left of fp32 in the network to TF32 in products and convolutions.
        cudnn_benchmark: Whether cuDNN tries its kernels for the shapes of a run and takes the fastest ones.
        channels_last: Memory format of the network; faster on most hardware.
        fused_norm: Whether BatchNorm, the PReLU behind it and the residual that is added run as one Triton kernel, on a
            GPU with a C compiler beside it; for IResNet and MobileFaceNet.
        device: ``auto``, ``cpu`` or ``cuda``.
        log_every: Updates between two readings of the loss.
    """

    epochs: int = Field(default=18, ge=1)
    batch_size: int = Field(default=512, ge=1)
    accumulate: int = Field(default=1, ge=1)
    precision: Precision | Literal["auto"] = "fp32"
    class_precision: ClassPrecision = "fp32"
    class_skip: float = Field(default=0.0, ge=0.0, lt=1.0)
    class_compile: bool = False
    amp: AmpBackend = "native"
    clip_norm: float | None = Field(default=None, gt=0)
    clip: Clip = "all"
    parallel: Parallel = "ddp"
    gradient_compression: Compression = "none"
    compile: Compile = "off"
    cuda_graph: bool = False
    tf32: bool = True
    cudnn_benchmark: bool = True
    channels_last: bool = True
    fused_norm: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = Field(default=50, ge=1)

    @field_validator("compile", mode="before")
    @classmethod
    def _off_is_a_word(cls, given: Any) -> Any:
        """YAML reads ``off`` as false."""
        return "off" if given is False else given

    @model_validator(mode="after")
    def _of_torch_alone(self) -> Self:
        if self.cuda_graph and self.amp == "apex":
            raise ValueError(
                "cuda_graph: true captures steps that need nothing of the host, and amp: apex decides there whether to "
                "skip one; set amp: native, or cuda_graph: false"
            )
        if self.compile != "off" and self.amp == "apex":
            raise ValueError(
                f"compile: {self.compile} cannot see the functions that amp: apex changes; set amp: native, or "
                "compile: off"
            )
        return self

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        return self

    @model_validator(mode="after")
    def _in_one_layout(self) -> Self:
        if self.fused_norm and not self.channels_last:
            raise ValueError("fused_norm reads maps channel by channel: it needs channels_last: true")
        return self


class EvaluationSettings(Strict):
    """The ``evaluation`` section.

    Attributes:
        protocols: What to test on, by the name that tables show; see ``facelab list protocols``. The headline of the
            first one decides which checkpoint is the best. ``null`` takes back one that a file sets which is extended,
            and leaves out one that ``data_root`` holds.
        data_root: Folder of test sets, of which all that are found there are tested on too, behind ``protocols``.
        every_epochs: Epochs between two evaluations; the last epoch is always evaluated. 0 tests only at the end.
        every_updates: Updates between two evaluations, in addition, or null.
        batch_size: Images in a forward pass.
        precision: Precision of the embeddings.
        on_corrupt: What becomes of images that cannot be read: ``error`` stops, ``zero`` gives them embeddings of
            zeros, ``skip`` leaves them out; reports count and name them.
        quality: Table or scorer by the protocol's name, for networks that take scores. Without one, the scorer of
            ``data.quality`` scores the protocols of such a network too. ``null`` takes one back.
    """

    protocols: dict[str, Spec | None] = Field(default_factory=dict)
    data_root: Path | None = None
    every_epochs: int = Field(default=1, ge=0)
    every_updates: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    precision: Precision = "fp32"
    on_corrupt: Literal["error", "zero", "skip"] = "error"
    quality: dict[str, ScoreSource] = Field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to test on."""
        return self.data_root is not None or any(spec is not None for spec in self.protocols.values())

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, tree: Any) -> Any:
        """Null says something only of what ``data_root`` holds."""
        if not isinstance(tree, dict) or tree.get("data_root") or not isinstance(tree.get("protocols"), dict):
            return tree
        return {**tree, "protocols": {name: spec for name, spec in tree["protocols"].items() if spec is not None}}

    @field_validator("quality", mode="before")
    @classmethod
    def _without_null_tables(cls, tables: Any) -> Any:
        return {name: one for name, one in tables.items() if one is not None} if isinstance(tables, dict) else tables


class CheckpointSettings(Strict):
    """The ``checkpoint`` section. The last and the best checkpoint are always kept.

    Attributes:
        every_epochs: Epochs between two checkpoints.
        every_updates: Updates between two checkpoints, in addition, or null.
        keep_every_epochs: Keep a checkpoint for good every so many epochs, or null.
    """

    every_epochs: int = Field(default=1, ge=1)
    every_updates: int | None = Field(default=None, ge=1)
    keep_every_epochs: int | None = Field(default=None, ge=1)


class RunConfig(Strict):
    """All settings of a run.

    Attributes:
        name: Names the run's folder.
        output: Folder that holds the folders of runs.
        plugins: Modules to import first; they register what is not ours.
        seed: Seed of everything random.
        mode: Training mode; see ``facelab list modes``.
        backbone: Network; see ``facelab list backbones``. Left out where there is a base model.
        base: Trained model to go on from: the folder of a run or of a checkpoint.
        input: What a new network sees of the aligned faces: all of the ``face``, its ``upper_half``, or so many of its
            upper rows, in pixels.
        adapter: Changes to the network, see ``facelab list adapters``; null trains all of it.
        gate: Map from quality scores to the weights of an adapter's experts, see ``facelab list gates``.
        head: Margin head; see ``facelab list heads``.
        classifier: Who owns the class rows; see ``facelab list classifiers``. Null, and no head either, for modes that
            learn without class rows.
        sample_weight: What weighs the samples of a batch by their losses, with any head; see ``facelab list
            sample_weights``. Null weighs all alike.
        callbacks: What else happens beside training: options by the callback's name, or names alone, one or a list; see
            ``facelab list callbacks``. ``null`` takes all of them back.
        tensorboard: Whether to write TensorBoard files.
    """

    name: str = Field(default="run", pattern=r"^[\w][\w.+-]*$")
    output: Path = Path("runs")
    plugins: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)
    mode: Spec = "conventional"
    backbone: Spec | None = None
    base: Path | None = None
    input: Literal["face", "upper_half"] | int = "face"
    adapter: Spec | None = None
    gate: Spec | None = None
    head: Spec | None = "ArcFace"
    classifier: Spec | None = "FullSoftmax"
    sample_weight: Spec | None = None
    data: DataSettings
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    callbacks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tensorboard: bool = True

    @property
    def rows_seen(self) -> int:
        """Rows of the aligned face that a new network sees, in pixels."""
        height = self.data.height_width[0]
        named = {"face": height, "upper_half": height // 2}
        return self.input if isinstance(self.input, int) else named[self.input]

    @model_validator(mode="after")
    def _input_lies_within_the_face(self) -> Self:
        if not 1 <= self.rows_seen <= self.data.height_width[0]:
            raise ValueError(
                f"input is {self.input}, but the faces have {self.data.height_width[0]} rows of pixels (data.size)"
            )
        return self

    @field_validator("callbacks", mode="before")
    @classmethod
    def _by_name(cls, callbacks: Any) -> Any:
        """A name, a list of names and of ``{Name: {option: value}}``, or a mapping whose options may be null."""
        listed = [callbacks] if isinstance(callbacks, str | dict) else callbacks or []
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str | dict) for one in listed):
            return callbacks
        pairs = [pair for one in listed for pair in (one.items() if isinstance(one, dict) else [(one, None)])]
        names = [name for name, _ in pairs]
        if len(names) != len(set(names)):
            raise ValueError("a callback is named twice")
        return {name: {} if options is None else options for name, options in pairs}

    @model_validator(mode="before")
    @classmethod
    def _head_goes_with_the_classifier(cls, tree: Any) -> Any:
        """Where one of the two is null and nothing is said of the other, that is null too."""
        if not isinstance(tree, dict) or None not in (tree.get("head", ""), tree.get("classifier", "")):
            return tree
        said = {key: tree[key] for key in ("head", "classifier") if tree.get(key) is not None}
        for key, value in said.items():
            other = "classifier" if key == "head" else "head"
            raise ValueError(
                f"{other} is null, but {key} is {value!r}: class rows need both; set {key}: null too, or name a {other}"
            )
        return {**tree, "head": None, "classifier": None}

    @model_validator(mode="after")
    def _weights_are_of_losses_over_class_rows(self) -> Self:
        if self.sample_weight is not None and self.classifier is None:
            raise ValueError(
                f"sample_weight {self.sample_weight!r} weighs samples by their losses over class rows, but classifier "
                "is null; set sample_weight: null, or name a classifier and a head"
            )
        return self

    def tree(self) -> Tree:
        """The settings as plain YAML types, defaults included."""
        return self.model_dump(mode="json")


# Changing these cannot change what is trained, so a run may be resumed with other values.
FREE_TO_CHANGE = (
    "name",
    "output",
    "tensorboard",
    "data.workers",
    "data.reader",
    "data.prefetch",
    "training.log_every",
    "training.device",
    "training.compile",
    "training.cuda_graph",
    "training.fused_norm",
    "training.tf32",
    "training.cudnn_benchmark",
    "training.parallel",
    "evaluation",
    "checkpoint",
    "callbacks",
)


def find_config(name: str) -> Path:
    """The file that a command line names: a path, or the name of a shipped configuration.

    Raises:
        ConfigError: If it is neither.
    """
    shipped = shipped_configs()
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"'{name}' is neither a file nor a shipped configuration.{did_you_mean(name, shipped)} "
        f"Shipped: {', '.join(shipped)}."
    )


def load_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, merge and check a configuration.

    Args:
        name: A YAML file or the name of a shipped one.
        overrides: ``key=value`` pairs that win over the file.

    Raises:
        ConfigError: If anything in it cannot work, or it is a study of several runs.
    """
    tree = load_tree(name, overrides)
    if isinstance(tree.get(VARIANTS), dict):
        raise ConfigError(f"'{name}' is a study of several runs ({', '.join(tree[VARIANTS])}), but one is needed here.")
    return make_config(tree, file_and_changes(find_config(name), overrides))


def load_tree(name: str, overrides: Sequence[str] = ()) -> Tree:
    """The merged settings of a configuration or study, not yet checked.

    Args:
        name: A YAML file or the name of a shipped one.
        overrides: ``key=value`` pairs that win over the file.

    Raises:
        ConfigError: If a file cannot be read, or an override is none.
    """
    tree = read_config(find_config(name), SPEC_PATHS, shipped_configs())
    return merge(tree, parse_overrides(overrides), SPEC_PATHS)


def file_and_changes(path: Path, overrides: Sequence[str]) -> str:
    """A file of settings and what the user changes in it, as messages begin."""
    changes = " ".join(overrides)
    return f"'{path}'" + (f" with {changes[:LONGEST]}{'…' if len(changes) > LONGEST else ''}" if changes else "")


def make_config(tree: dict[str, Any], where: str) -> RunConfig:
    """Check a tree of settings."""
    return validate(RunConfig, tree, where)
