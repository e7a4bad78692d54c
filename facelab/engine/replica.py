"""The network in training as this process runs it: alone, or as one of several copies that are kept equal."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from facelab import distributed
from facelab.engine.compilation import CallMethod, Compile, call_method, method_caller

if TYPE_CHECKING:
    from facelab.backbone.base import Features

N = TypeVar("N", bound=nn.Module)

Compression = Literal["none", "fp16", "bf16"]
Parallel = Literal["ddp", "fsdp"]
HOOKS: Mapping[Compression, Any] = {
    "fp16": fp16_compress_hook,
    # By another name, because DistributedDataParallel refuses the function itself on gloo, which can do it.
    "bf16": lambda state, bucket: bf16_compress_hook(state, bucket),
}


class Replica(Generic[N]):
    """A network in training, as one process alone trains it, and the contract of every other way to train it.

    Modes and the loop see their network through this object and never ask which form it has. A form is a subclass that
    says how a method of the network runs, and where gradients or weights do not lie whole on each process, how they are
    gathered.

    Class rows stay outside: each process holds other ones, with gradients that are complete, so there is nothing to
    average.

    Args:
        network: The network on its device, with everything frozen that is not to be trained.
        call: Calls one of its methods for a pass with gradients, see `method_caller`.

    Attributes:
        network: The same, for its properties; a forward pass with gradients goes through the replica.
        whole: Whether the network lies whole on each process, which may then call it beside the replica, and copy it.
    """

    whole: ClassVar[bool] = True

    def __init__(self, network: N, call: CallMethod = call_method) -> None:
        self.network: N = network
        self._caller = call

    def __call__(self, *inputs: Any) -> Tensor:
        """Forward pass of the network: of a backbone, embeddings (B, D)."""
        return cast(Tensor, self.call("__call__", *inputs))

    def features(self, *inputs: Tensor) -> "Features":
        """Embedding and inner features of a backbone, see `facelab.backbone.base.Backbone.features`.

        As after a forward pass, the loss must depend on every parameter in training; the embedding usually sees to it.
        """
        return cast("Features", self.call("features", *inputs))

    def call(self, method: str, *inputs: Any) -> Any:
        """What a method of the network gives, on all processes alike; with gradients if they are enabled."""
        return self._caller(self.network, method, *inputs)

    def no_sync(self) -> AbstractContextManager[None]:
        """Context of passes whose gradients are only accumulated: processes need not exchange them yet."""
        return nullcontext()

    def parts(self) -> Mapping[nn.Parameter, nn.Parameter]:
        """Parameters of which this process holds a part, each with that part, which an optimiser moves; often none."""
        return {}

    def collect_gradients(self) -> None:
        """Give the gradients of the last backward pass to `parts`; to be called before anyone looks at them."""

    def spread(self, parameter: nn.Parameter, own: Tensor) -> Tensor:
        """A tensor of the shape of one of the parameters in `parts`, of which ``own`` is what this process holds."""
        return own

    def cut(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """What this process holds of a tensor of the shape of one of the parameters in `parts`."""
        return whole

    def gathered(self, tree: Any) -> Any:
        """Nested mappings and lists with whole tensors in the place of those that are spread over the processes.

        To be called on every process; the first one gets their numbers, others may get shapes alone.
        """
        return tree

    def gradient_norm(self) -> Tensor:
        """Norm () of the gradients of the whole network, equal on all processes; 0 if it has none yet."""
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        return get_total_norm(gradients) if gradients else next(self.network.parameters()).new_zeros(())

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers of the whole network by name; the live tensors, for a checkpoint to be `gathered`."""
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.network.load_state_dict(state)

    @contextmanager
    def inference_view(self) -> Iterator[N]:
        """Context that gives the network as it is exported, to be evaluated on all processes.

        Each process keeps BatchNorm statistics of its own in training. Inside the context all have those of the first
        process, which are exported: else each would embed its share of the test images with a slightly different
        network, and none of the results would be that of the exported one. Afterwards each has its own again.
        """
        buffers = list(self.network.buffers())
        own = [buffer.clone() for buffer in buffers]
        try:
            for buffer in buffers:
                distributed.broadcast_into(buffer, 0)
            yield self.network
        finally:
            with torch.no_grad():
                for buffer, kept in zip(buffers, own, strict=True):
                    buffer.copy_(kept)


class DataParallel(Replica[N]):
    """A copy of the network in every process; gradients are averaged over them (DistributedDataParallel).

    Args:
        network: See `Replica`.
        call: See `Replica`.
        compression: In which format gradients travel: as they are, or in half of the bytes. fp16 has ten bits behind
            the point and loses what is below 6e-8 or above 65,504 over the number of processes; bf16 has seven bits
            and the range of fp32.
    """

    def __init__(self, network: N, call: CallMethod = call_method, compression: Compression = "none") -> None:
        super().__init__(network, call)
        # Buffers are not broadcast: that would cost a message in each step for statistics that are only read in
        # evaluation, and two forward passes before one backward pass would find theirs changed.
        known = inspect.signature(DistributedDataParallel).parameters
        renamed = "forward_sync_buffers" in known  # since torch 2.13
        keep_buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        self._parallel = DistributedDataParallel(Methods(network, call), **keep_buffers)
        if compression != "none":
            self._parallel.register_comm_hook(None, HOOKS[compression])

    def no_sync(self) -> AbstractContextManager[None]:
        """Context of passes after which each process keeps its gradients to itself."""
        context: AbstractContextManager[None] = self._parallel.no_sync()
        return context

    def call(self, method: str, *inputs: Any) -> Any:
        """What a method of the network gives; gradients that its backward pass makes are averaged."""
        return self._parallel(method, *inputs)


class Methods(nn.Module):
    """Any method of a network by way of ``forward``.

    DistributedDataParallel and FSDP get ready for a backward pass in their own ``forward``; of a method that is called
    beside it, the gradients would silently stay those of one process.
    """

    def __init__(self, network: nn.Module, call: CallMethod = call_method) -> None:
        super().__init__()
        self.network = network
        self._caller = call

    def forward(self, method: str, *inputs: Any) -> Any:
        """What the method gives."""
        return self._caller(self.network, method, *inputs)


class Replicate(Protocol):
    """Makes of a network what this process trains, such as `replicate`."""

    def __call__(self, network: N, /) -> Replica[N]:
        """The replica of ``network``."""


def replicate(network: N, compression: Compression = "none", compile: Compile = "off") -> Replica[N]:
    """The network as this process trains it, on its own or together with others.

    Args:
        network: See `Replica`.
        compression: See `DataParallel`; alone, there is nothing to send.
        compile: See `method_caller`.
    """
    # DDP refuses a frozen one, to average nothing.
    frozen = not any(parameter.requires_grad for parameter in network.parameters())
    call = method_caller(compile)
    return (
        Replica(network, call) if frozen or distributed.world_size() == 1 else DataParallel(network, call, compression)
    )
