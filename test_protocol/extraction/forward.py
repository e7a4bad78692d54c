"""Running a network on stored pixels: input, precision, threads, and leaving it as it was."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

from facelab.backbone.base import check_quality, takes_quality
from facelab.errors import ConfigError
from facelab.inputs import InputSpec, normalise
from facelab.undisturbed import undisturbed
from facelab.weights.state_hash import state_hash

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
TORCH = "torch"
LEAST_SHARE = 8  # images for a thread below which its convolutions lose their speed


class Forward:
    """A network on batches of stored pixels, in evaluation mode and without gradients.

    On a CPU a batch is shared out to threads that compute with one core each: cores then never wait for each other
    inside an operation, which is faster, and very much so when other programs use the machine. A network whose forward
    pass must not run in several threads at once says so by an attribute ``sequential_forward = True``. One that takes a
    quality score of each image says ``needs_quality = True`` and has ``forward(image, quality)``.

    Args:
        network: A backbone, on ``device``.
        device: Where it runs.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``.
        channels_last: Memory format of the images.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision, channels_last: bool) -> None:
        self.spec = input_spec_of(network)
        self._takes_quality = takes_quality(network)
        self._network = network
        self._device = device
        self._precision = precision
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        alone = device.type != "cpu" or getattr(network, "sequential_forward", False)
        self._threads = 1 if alone else torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._open = ExitStack()

    def __enter__(self) -> "Forward":
        """Bring the network to its device and into evaluation mode, and start the threads."""
        self._open.enter_context(undisturbed(self._network, self._device))
        if self._threads > 1:
            self._open.callback(torch.set_num_threads, self._threads)  # later threads would start with one core
            self._pool = self._open.enter_context(
                ThreadPoolExecutor(self._threads, "forward", initializer=torch.set_num_threads, initargs=(1,))
            )
        else:
            self._open.enter_context(self._computing())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads, and leave the network as it was."""
        self._open.close()

    def __call__(self, pixels: Tensor, quality: Tensor | None = None) -> Tensor:
        """Embeddings of images.

        Args:
            pixels: RGB uint8, (B, 3, H, W), on the device.
            quality: Score of each image, float32, (B,), on the device; only networks that take it see it.

        Returns:
            float32, (B, D), still on the device.

        Raises:
            ConfigError: If the network takes quality scores and there are none.
        """
        inputs = (pixels, quality) if self._takes_quality and quality is not None else (pixels,)
        check_quality(self._network, given=quality is not None)
        shares = min(self._threads, len(pixels) // LEAST_SHARE)
        if self._pool is None:
            return self._compute(*inputs)
        if shares < 2:  # too few to share out: all cores on one batch, from this thread, which still has them
            return self._in_thread(*inputs)
        return torch.cat(list(self._pool.map(self._in_thread, *(tensor.tensor_split(shares) for tensor in inputs))))

    def _in_thread(self, pixels: Tensor, *quality: Tensor) -> Tensor:
        with self._computing():  # these modes belong to a thread
            return self._compute(pixels, *quality)

    def _compute(self, pixels: Tensor, *quality: Tensor) -> Tensor:
        image = normalise(pixels, self.spec).contiguous(memory_format=self._layout)
        embedding: Tensor = self._network(image, *quality)
        return embedding.to(torch.float32)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), self._autocast():
            yield

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, AUTOCAST[self._precision])


def input_spec_of(network: nn.Module) -> InputSpec:
    """What input a network takes.

    Raises:
        ConfigError: If it does not say.
    """
    spec = getattr(network, "input_spec", None)
    if not isinstance(spec, InputSpec):
        raise ConfigError(
            f"{type(network).__name__} has no input_spec, so size, colour order and value range are unknown."
        )
    return spec


def backend_of(network: nn.Module) -> str:
    """What computes a network's embeddings: PyTorch, unless it says otherwise by an attribute ``backend``."""
    return str(getattr(network, "backend", TORCH))


def model_hash(network: nn.Module) -> str:
    """A hash (hex) of a network's structure, input and every value of its state dict."""
    # Addresses of functions in the text differ from one run to the next.
    structure = re.sub(r" at 0x[0-9a-f]+", "", f"{network!r} {getattr(network, 'input_spec', None)}")
    return state_hash(network.state_dict(), structure)
