"""A whole training step as one CUDA graph: forward, backward and update, launched at once.

A graph repeats kernels on the memory that they had when it was captured. So batches are copied to one place, learning
rates and the number of the update are tensors, everything that a step remembers is changed in place, and whatever
else there is must not move: `StateThatMoves` finds it before it would be wrong without a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.engine.loop import Mode, StepOutput
from facelab.engine.optimization import Optimization
from facelab.engine.optimizers import step_by_tensors, why_not_captured
from facelab.engine.phases import phase
from facelab.engine.replica import Replica
from facelab.errors import ConfigError, first_line

WARM_UP = 3  # updates before the capture: libraries choose kernels and take memory, optimisers make their state
INSTEAD = "set training.cuda_graph=false"


def refuse_cuda_graph(optim: Optimization, host_work: str) -> None:
    """Refuse to capture steps that need the host, before the first one.

    Args:
        optim: That of the run.
        host_work: Why a step of the mode needs the host; empty if it does not.

    Raises:
        ConfigError: If so; says why, and what works.
    """
    if optim.device.type != "cuda":
        why = f"is for GPUs, whose kernels it launches together, but the run is on the {optim.device.type.upper()}"
    elif distributed.world_size() > 1 or any(type(replica) is not Replica for replica in optim.replicas):
        why = "captures the steps of one process, and several exchange gradients here"
    elif optim.accumulate > 1:
        why = f"captures steps that are updates, but training.accumulate={optim.accumulate} passes make one"
    elif host_work:
        why = f"captures steps that need nothing of the host, but {host_work}"
    else:
        why = next(filter(None, map(why_not_captured, optim.optimizers)), "")
    if why:
        raise ConfigError(f"training.cuda_graph {why}; {INSTEAD}.")


class StateThatMoves:
    """Finds what a step remembers elsewhere than in tensors that stay where they are.

    Args:
        owners: Objects of Python and modules by the names that messages give them.
        optim: Its optimisers' state is looked at too.
    """

    def __init__(self, owners: Mapping[str, Any], optim: Optimization) -> None:
        self._owners, self._optim = owners, optim
        self._before: dict[str, Any] = {}

    def look(self) -> str:
        """Name of something that is other than at the last look, by identity or, of numbers, by value; or nothing.

        What was not there at the last look is passed over.
        """
        before, self._before = self._before, dict(self._all())
        return next((name for name, now in self._before.items() if name in before and _differs(before[name], now)), "")

    def _all(self) -> Iterator[tuple[str, Any]]:
        for name, owner in self._owners.items():
            parts = owner.named_modules() if isinstance(owner, nn.Module) else [("", owner)]
            for path, part in parts:
                held = {**vars(part), **vars(part).get("_buffers", {}), **vars(part).get("_parameters", {})}
                for key, value in held.items():
                    if isinstance(value, Tensor | bool | int | float):
                        yield ".".join(filter(None, (name, path, key))), value
        for number, optimizer in enumerate(self._optim.optimizers):
            for index, state in enumerate(optimizer.state.values()):
                for key, value in state.items():
                    yield f"optimizer {number}.{index}.{key}", value


def _differs(before: Any, now: Any) -> bool:
    return before is not now if isinstance(now, Tensor) else bool(before != now)


@dataclass(frozen=True)
class Captured:
    """A graph, and the memory that it works on.

    Attributes:
        graph: The kernels of a step.
        batch: Where it reads its batch.
        output: Where it writes loss and metrics.
        norm: Where it writes the norm of the gradients.
    """

    graph: torch.cuda.CUDAGraph
    batch: Any
    output: StepOutput
    norm: Tensor

    def take(self, batch: Any) -> None:
        """Copy a batch to where the graph reads it.

        Raises:
            ConfigError: If it is of another size.
        """
        for static, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            if static.shape != given.shape:
                raise ConfigError(
                    f"training.cuda_graph repeats steps of one size, but a batch has {tuple(given.shape)} after "
                    f"{tuple(static.shape)}; {INSTEAD}."
                )
            static.copy_(given, non_blocking=True)

    def result(self) -> tuple[StepOutput, Tensor]:
        """Copies of what the last replay gave: the next one writes over it."""
        metrics = {name: value.clone() for name, value in self.output.metrics.items()}
        return StepOutput(self.output.loss.clone(), metrics), self.norm.clone()


class StepGraph:
    """Makes updates: the first few as ever, to warm up, then by a graph. Each of them counts.

    Args:
        mode: What is trained; its steps need nothing of the host, see `refuse_cuda_graph`.
        optim: On a GPU.
        owners: What the mode remembers things in: itself, its networks, its owners of class rows.
    """

    def __init__(self, mode: Mode, optim: Optimization, owners: Mapping[str, Any]) -> None:
        self._mode, self._optim = mode, optim
        self._state = StateThatMoves({**owners, "watch": optim.watch, "arithmetic": optim.arithmetic}, optim)
        # Of warm-up and capture alike, because autograd adds gradients on the stream where it first met a parameter.
        self._stream = torch.cuda.Stream(optim.device)  # type: ignore[no-untyped-call]
        self._made = 0
        self._captured: Captured | None = None
        for optimizer in optim.optimizers:
            step_by_tensors(optimizer)

    def __call__(self, batch: Any) -> tuple[StepOutput, Tensor]:
        """One update by a batch on the device; what `Mode.step` and `Optimization.update` give.

        Raises:
            ConfigError: If the step turns out to need the host, or batches differ in size.
        """
        if self._captured is None:
            if self._made < WARM_UP:
                return self._warm_up(batch)
            self._captured = self._capture(batch)  # which computes nothing yet
        self._captured.take(batch)
        self._optim.begin_update()
        self._captured.graph.replay()
        return self._captured.result()

    def _warm_up(self, batch: Any) -> tuple[StepOutput, Tensor]:
        self._state.look()
        self._made += 1
        current = torch.cuda.current_stream(self._optim.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._optim.begin_update()
            given = self._update(batch)
        current.wait_stream(self._stream)
        return given

    def _capture(self, batch: Any) -> Captured:
        self._refuse_moved()
        static = _copied(batch)
        for optimizer in self._optim.optimizers:
            for group in optimizer.param_groups:
                if "capturable" in group:  # AdamW warns if it is said before
                    group["capturable"] = True
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread alone: those of the loader may go on pinning memory.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                output, norm = self._update(static)
        except RuntimeError as error:
            reason = first_line(error.__context__ or error)  # leaving the capture fails too, and says less
            raise ConfigError(f"training.cuda_graph cannot capture a step: {reason}; {INSTEAD}.") from None
        self._refuse_moved()
        return Captured(graph, static, replace(output, loss=output.loss.detach()), norm)

    def _update(self, batch: Any) -> tuple[StepOutput, Tensor]:
        with phase("forward"), self._optim.autocast():
            output = self._mode.step(batch)
        return output, self._optim.move_by(output.loss)

    def _refuse_moved(self) -> None:
        if moved := self._state.look():
            raise ConfigError(
                f"training.cuda_graph repeats a step on the memory that it once had, but each step makes '{moved}' "
                f"anew; {INSTEAD}."
            )


def _tensors(batch: Any) -> list[Tensor]:
    """Those of a batch, which is a dataclass, in the order of its fields."""
    values = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in values if isinstance(value, Tensor)]


def _copied(batch: Any) -> Any:
    """A batch with tensors of its own."""
    tensors = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return replace(batch, **{name: one.clone() for name, one in tensors.items() if isinstance(one, Tensor)})
