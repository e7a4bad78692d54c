"""A network whose parameters, gradients and optimiser state are shared out over the processes (FSDP2)."""

import ctypes
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from facelab import distributed
from facelab.engine.replica import Compression, Methods, Replica
from facelab.errors import ConfigError

N = TypeVar("N", bound=nn.Module)

MALLOC_MMAP_THRESHOLD, SMALLEST_RETURNED = -3, 4 << 20  # the first as <malloc.h> has it, the second in bytes

REDUCED: Mapping[Compression, torch.dtype | None] = {"none": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Sharded(Replica[N]):
    """Each process holds a part of every parameter, of its gradient, and of what the optimiser keeps for it.

    Fully sharded data parallelism (Zhao et al., VLDB 2023, arXiv:2304.11277) by torch's ``fully_shard``: the parameters
    of a unit are gathered just before it runs, forward and backward, and dropped behind it; gradients are averaged over
    the processes, each of which keeps those of its parts. A part is a range of rows of the first dimension, which may
    be empty, in the parameter's own format; autocast makes of it what a forward pass computes with.

    Args:
        network: See `Replica`. Afterwards only passes through this object may run it.
        units: Modules in it that are gathered one by one; what lies in none stays gathered for a whole pass.
        compression: In which format gradients travel, see `DataParallel`.

    Raises:
        ConfigError: If there are no units, one process alone, or a parameter of a single number, which has no rows.
    """

    whole: ClassVar[bool] = False

    def __init__(self, network: N, units: Sequence[nn.Module], compression: Compression = "none") -> None:
        _check(network, units)
        super().__init__(network)
        self._view = _without_values(network)  # before torch makes other classes of the units
        for parameter in network.parameters():  # of channels_last weights, rows do not lie behind one another
            parameter.data = parameter.data.contiguous()
        device = next(network.parameters()).device.type
        if device == "cpu":
            return_large_blocks()
        mesh = init_device_mesh(device, (distributed.world_size(),))
        policy = MixedPrecisionPolicy(reduce_dtype=REDUCED[compression], cast_forward_inputs=False)
        for unit in units:
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        self._parallel: FSDPModule = fully_shard(Methods(network), mesh=mesh, mp_policy=policy)
        # torch warns of maps that are views, for whoever would write into them; nobody does.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        # As DistributedDataParallel does it: gloo has no mean of its own in every version.
        self._parallel.set_force_sum_reduction_for_comms(device == "cpu")
        self._parts = {one: nn.Parameter(local(one), one.requires_grad) for one in network.parameters()}

    def call(self, method: str, *inputs: Any) -> Any:
        """What a method of the network gives; all processes call equally often, because parameters are gathered."""
        return self._parallel(method, *inputs)  # type: ignore[operator]

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Context of passes after which each process keeps gradients of the whole parameters to itself."""
        self._parallel.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._parallel.set_requires_gradient_sync(True)

    def parts(self) -> Mapping[nn.Parameter, nn.Parameter]:
        """Every parameter with what this process holds of it, in the same memory."""
        return self._parts

    def collect_gradients(self) -> None:
        """Move the gradients of the last backward pass to the parts."""
        for parameter, part in self._parts.items():
            if parameter.grad is not None:
                part.grad, parameter.grad = local(parameter.grad), None

    def gradient_norm(self) -> Tensor:
        """Norm () of the gradients of the whole network, of which each process has parts."""
        self.collect_gradients()
        gradients = [part.grad for part in self._parts.values() if part.grad is not None]
        square = torch.stack([gradient.norm() for gradient in gradients]).square().sum() if gradients else None
        if square is None:
            return next(iter(self._parts.values())).new_zeros(())
        return distributed.all_reduce_sum(square).sqrt()

    def spread(self, parameter: nn.Parameter, own: Tensor) -> Tensor:
        """A tensor of the shape of a parameter, shared out like it."""
        like = cast(DTensor, parameter)
        layout = (like.device_mesh, like.placements)
        return DTensor.from_local(own, *layout, run_check=False, shape=like.shape, stride=like.stride())

    def cut(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """The rows of a tensor, equal on all processes, that this one holds of a parameter of its shape."""
        return _part(whole, parameter)

    def gathered(self, tree: Any) -> Any:
        """The same with whole tensors: on the first process in the memory of the CPU, on others without numbers."""
        return _gathered(tree, {})

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers by name; parameters are shared out."""
        # Parameters themselves, by which `gathered` knows that it has gathered one already.
        return self.network.state_dict(keep_vars=True)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave, or the same in whole tensors, equal on all processes."""
        for name, own in self.network.state_dict().items():
            local(own).copy_(_part(state[name], own))

    @contextmanager
    def inference_view(self) -> Iterator[N]:
        """Context that gives the whole network on each process, which may then embed as many images as it likes."""
        nothing = dict(self._view.named_parameters())
        with super().inference_view():
            try:
                for name, parameter in self.network.named_parameters():
                    _put(self._view, name, nn.Parameter(_whole(parameter), requires_grad=False))
                yield self._view
            finally:
                for name, parameter in nothing.items():
                    _put(self._view, name, parameter)


def return_large_blocks() -> None:
    """Have freed memory of 4 MiB and more go back to the system at once, for the rest of this process.

    Of itself glibc comes to keep blocks of up to 32 MiB, where gathered units leave holes between activations: a Swin
    in parts then needs more memory than a whole one. Other C libraries return such blocks anyway.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(MALLOC_MMAP_THRESHOLD, SMALLEST_RETURNED)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


def _part(whole: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a tensor that is to be shared out like another one; of one that is, what it holds."""
    if isinstance(whole, DTensor) or not isinstance(like, DTensor):
        return local(whole)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None).to_local()


def _check(network: nn.Module, units: Sequence[nn.Module]) -> None:
    if distributed.world_size() == 1:
        raise ConfigError(
            "training.parallel=fsdp shares a network out over processes, and there is one; start several "
            "(PROCESSES=2 bash train.sh), or set training.parallel=ddp."
        )
    if not units:
        raise ConfigError(
            f"training.parallel=fsdp gathers a network block by block, and {type(network).__name__} names no blocks "
            "(Backbone.fsdp_units); ViT and Swin do; set training.parallel=ddp."
        )
    single = [name for name, parameter in network.named_parameters() if not parameter.ndim]
    if single:
        raise ConfigError(
            f"training.parallel=fsdp cuts parameters into rows, and '{single[0]}' is a single number; choose a gate "
            "that is not trained, such as 'sigmoid', or set training.parallel=ddp."
        )


def _without_values(network: N) -> N:
    """A copy with the same buffers and with parameters that have shapes alone."""
    known: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    known |= {id(one): nn.Parameter(torch.empty_like(one, device="meta"), False) for one in network.parameters()}
    return deepcopy(network, known)  # takes for a copy what it finds there


def _put(network: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, key = name.rpartition(".")
    network.get_submodule(owner).register_parameter(key, parameter)


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor on every process; what is whole already as it is."""
    return cast(DTensor, tensor.detach()).full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def _gathered(tree: Any, known: dict[int, Tensor]) -> Any:
    """See `Sharded.gathered`; a tensor that stands in several places is gathered once."""
    if isinstance(tree, Mapping):
        return {key: _gathered(value, known) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_gathered(value, known) for value in tree)
    if not isinstance(tree, DTensor):
        return tree
    if id(tree) not in known:
        whole = _whole(tree)
        known[id(tree)] = whole.cpu() if distributed.is_main() else torch.empty_like(whole, device="meta")
    return known[id(tree)]
