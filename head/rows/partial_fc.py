"""A sample of the classes in every step, the classes of the batch among them."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates
from facelab.head.classifier import CLASSIFIERS, ClassifierOutput, UpdateRule
from facelab.head.noise import shuffled
from facelab.head.reused_memory import ReusedMemory
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.rows.initial import Initial
from facelab.head.rows.row_files import RowFiles
from facelab.head.rows.row_optimizers import RowAdamW, RowSGD, Zeros, zeros_in_memory
from facelab.head.rows.stored_numbers import require_whole

Unsampled = Literal["lazy", "exact"]

MOST_UPDATES = 2**40 - 1  # the number of an update seeds its draw with the first class of a process above it


@CLASSIFIERS.register("PartialFC")
class PartialFC(FullSoftmax):
    """Rows that are parameters, of which some take part in each update (An et al., CVPR 2022, arXiv:2203.15565, Eq. 5).

    Each process takes ``int(sample_rate * its classes)`` classes: those of the batch that it owns, and others drawn
    anew for each update, from ``seed``, the number of the update and the classes it owns. Time and memory of a step
    follow the classes that take part, not all: rows that do not are neither read nor written, and have no gradient.

    Sums over negatives and means over classes that heads ask for (AdaCos, NPCFace, AdaM-Softmax) are estimates of those
    over all classes, without bias. So is the loss of binary heads (UniFace, SphereFace2), where each negative counts
    for all that it stands for. A softmax goes over the classes that take part, as in the paper. In evaluation mode all
    do.

    Args:
        num_classes: As in `FullSoftmax`.
        feat_dim: As in `FullSoftmax`.
        head: As in `FullSoftmax`.
        seed: As in `FullSoftmax`, and of the draws.
        sample_rate: Share of the classes that takes part, above 0, at most 1 (`FullSoftmax`). Or a schedule: pairs of
            an update and the rate from there on, such as ``[[0, 0.1], [20000, 0.3]]``. Where fewer take part than
            the batch has, those of the batch do alone.
        unsampled: What rows miss that do not take part: with ``lazy`` weight decay and momentum do nothing to them;
            with ``exact``, for SGD without Nesterov's momentum, they are caught up before they are read the next
            time, so that all is as with a dense optimiser (InsightFace's program).
        initial: As in `FullSoftmax`.
        deviation: As in `FullSoftmax`.
        rows_per_class: As in `FullSoftmax`.
        folder: Where class rows and their state lie in files, for more of them than memory holds, in training on the
            CPU; best on a disk of this machine. None keeps them in memory. Nothing is left in it when the run ends.

    Attributes:
        updates: How often `after_update` was called, int64, ().

    Raises:
        ConfigError: If an argument is out of range, or the head does not fit ``rows_per_class``.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="an2022partialfc",
        title="Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC",
        authors="An, Xiang and Deng, Jiankang and Guo, Jia and Feng, Ziyong and Zhu, Xuhan and Yang, Jing and "
        "Liu, Tongliang",
        venue="CVPR",
        year=2022,
        arxiv="2203.15565",
    )
    updates: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        head: MarginHead,
        seed: int = 0,
        sample_rate: float | Sequence[tuple[int, float]] = 0.1,
        unsampled: Unsampled = "lazy",
        initial: Initial = "unit",
        deviation: float = 0.01,
        rows_per_class: int = 1,
        folder: Path | None = None,
    ) -> None:
        # Before the rows are drawn into them.
        self._files = None if folder is None else RowFiles(folder, type(self).__name__)
        super().__init__(num_classes, feat_dim, head, seed, initial, deviation, rows_per_class)
        self.seed = seed
        self.rates = _checked_rates(sample_rate)
        self.unsampled = unsampled
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._update = 0  # the same, where it can be read without waiting for a device
        self._row_sgd: RowSGD | None = None
        self._said_positives_only = False
        self._count_taken = 0
        # Weakly: rows that held their owner would be held until somebody looks for cycles, however large they are.
        mark = partial(_mark_as_sorted, ref(self))
        for parameter in self._row_parameters():
            parameter.register_post_accumulate_grad_hook(mark)  # type: ignore[no-untyped-call]

    def optimizer(self, rule: UpdateRule) -> Optimizer | None:
        """One that touches no other rows than those that took part; None if that are always all.

        Raises:
            ConfigError: If rows shall be caught up exactly, and the rule is not SGD without Nesterov's momentum.
        """
        if self.unsampled == "exact" and (rule.name != "sgd" or rule.nesterov):
            reason = (
                "its steps depend on each row's own past, which no one map describes"
                if rule.name != "sgd"
                else "which looks ahead by a gradient that a row without one has not"
            )
            chosen = "Nesterov's momentum" if rule.name == "sgd" else rule.name
            raise ConfigError(
                f"PartialFC unsampled: exact cannot catch up rows of {chosen}, {reason}; set "
                "classifier.PartialFC.unsampled=lazy, or optimizer.name=sgd optimizer.nesterov=false."
            )
        if all(rate == 1.0 for _, rate in self.rates):
            return None
        if rule.name == "adamw":
            return RowAdamW(self._row_parameters(), rule, self._zeros)
        sgd = RowSGD(self._row_parameters(), rule, self._zeros, exact=self.unsampled == "exact")
        self._row_sgd = sgd if sgd.exact else None
        return sgd

    def after_update(self) -> None:
        """Draw other classes from now on."""
        self.updates += 1
        self._update += 1
        if self._files is not None and self.sample_rate < 1.0:
            self._files.expect_samples()
            self._files.read_ahead(self._next_rows())

    @property
    def sample_rate(self) -> float:
        """Share of the classes that takes part in this update."""
        return next(rate for start, rate in reversed(self.rates) if start <= self._update)

    def forward(self, embedding: Tensor, labels: Tensor, weight: Tensor | None = None) -> ClassifierOutput:
        """As in `Classifier`; among the metrics is ``sample_rate``, by which the loss of a softmax jumps.

        Args:
            embedding: As there.
            labels: As there.
            weight: As there.
        """
        output = super().forward(embedding, labels, weight)
        # Filled in on the device: a number that is copied there would be waited for.
        rate = embedding.new_full((), self.sample_rate if self.training else 1.0, dtype=self.row_dtype)
        return ClassifierOutput(output.loss, {**output.metrics, "sample_rate": rate})

    def candidates(self, features: Tensor, labels: Tensor) -> Candidates:
        """The owned classes of the batch, and others drawn for this update."""
        if not self.training:
            return self._all_classes(labels)
        if self.sample_rate == 1.0:
            if self._row_sgd is not None:
                self._row_sgd.catch_up()
            return super().candidates(features, labels)
        column, owned = self.shard.columns(labels)
        taken, weight = self._sample(column, owned)
        self._count_taken = len(taken)
        if self._row_sgd is not None:
            self._row_sgd.catch_up(taken)
        self._limit_class_parameters(taken)
        return Candidates(
            _take(self.weight, taken, self.step_memory),
            # A column that was not taken, which is nobody's target here, may be looked for behind the last one.
            torch.searchsorted(taken, column).clamp_max(len(taken) - 1),
            owned,
            bias=None if self.class_bias is None else _take(self.class_bias, taken, self.step_memory),
            class_parameters={
                name: _take(values, taken, self.step_memory) for name, values in self.class_parameters.items()
            },
            weight=weight,
            taken=taken,
        )

    def order(self, count: int) -> Tensor:
        """Owned classes in the order in which they are to be taken, beside those of the batch.

        Args:
            count: How many there must be, at least; those of the batch count as well as others.

        Returns:
            Different columns, int64, (N,); a column that is none of this process counts for nothing.
        """
        return shuffled(self.seed, self.updates + (self.shard.start << 40), self.shard.size, count)

    def _next_rows(self) -> Tensor:
        """Rows that the next update will ask for, beside those of its batch."""
        count = max(1, int(self.sample_rate * self.shard.size))
        order = self.order(count)[:count]
        return order[(order >= 0) & (order < self.shard.size)].sort().values

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        return super()._memory(shape) if self._files is None else self._files.zeros(shape)

    @property
    def _zeros(self) -> Zeros:
        """Gives zeros of the shape of rows, where these are kept."""
        return zeros_in_memory if self._files is None else self._files.zeros_like

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = fn(torch.empty(0))
        if self._files is not None and (moved.device.type, moved.dtype) != ("cpu", torch.float32):
            raise ConfigError(
                f"{type(self).__name__} folder: rows in files are float32 and for training on the CPU, not "
                f"{moved.dtype} on {moved.device}; leave classifier.{type(self).__name__}.folder out."
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _all_classes(self, labels: Tensor) -> Candidates:
        """For evaluation: nothing moves, so rows are caught up in a copy."""
        column, owned = self.shard.columns(labels)
        rows = {name: self._current(parameter) for name, parameter in super().row_tensors().items()}
        numbers = {name: rows[f"class_parameters.{name}"] for name in self.class_parameters}
        return Candidates(rows["weight"], column, owned, rows.get("class_bias"), numbers)

    def _current(self, parameter: Tensor) -> Tensor:
        assert isinstance(parameter, nn.Parameter)
        return parameter if self._row_sgd is None else self._row_sgd.caught_up(parameter)

    def _sample(self, column: Tensor, owned: Tensor) -> tuple[Tensor, Tensor]:
        """The columns that take part, ascending, (N,), and how many classes each stands for as a negative, (N,)."""
        size = self.shard.size
        own = torch.where(owned, column, size).sort().values  # those that are elsewhere come last
        first = own < size
        first[1:] &= own[1:] != own[:-1]
        count = self._count(first)
        # The first ones of a list without repetition: the classes of the batch, then the others in their order.
        # No shape depends on what is in the batch, so that the host need not wait for it.
        order = self.order(count)
        place = torch.searchsorted(own, order).clamp_max(len(own) - 1)
        classes = torch.cat([own, order])
        fits = torch.cat([first, (order >= 0) & (order < size) & (own[place] != order)])
        rank = fits.cumsum(0)
        slot = torch.where(fits & (rank <= count), rank - 1, count)
        taken, by = classes.new_empty(count + 1).scatter_(0, slot, classes)[:count].sort()
        positives = first.sum()
        others = (size - positives) / (count - positives).clamp_min(1)
        return taken, torch.where(by < positives, 1.0, others).to(self.row_dtype)

    def _count(self, first: Tensor) -> int:
        """How many classes take part on this process."""
        count = max(1, int(self.sample_rate * self.shard.size))
        if count >= min(len(first), self.shard.size):
            return count
        positives = int(first.sum())  # only where the batch may have more classes than shall take part
        if positives > count and not self._said_positives_only:
            self._said_positives_only = True
            logging.getLogger(__name__).warning(
                f"PartialFC: a sample_rate of {self.sample_rate} keeps {count} of {self.shard.size} classes, but the "
                f"batch has {positives} of them; all of these take part, and no others."
            )
        return max(count, positives)

    @torch.no_grad()
    def _limit_class_parameters(self, taken: Tensor) -> None:
        for name, wanted in self.head.class_parameters.items():
            values = self.class_parameters[name]
            values[taken] = values[taken].clamp(wanted.smallest, wanted.largest)

    def _row_parameters(self) -> list[nn.Parameter]:
        # Those above: what subclasses add is not learned.
        return [value for value in super().row_tensors().values() if isinstance(value, nn.Parameter)]

    def _save_to_state_dict(self, *given: Any) -> None:
        if self._files is not None:
            self._files.expect_all()  # until the next update
        super()._save_to_state_dict(*given)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        require_whole(state, prefix, {"updates": (0, MOST_UPDATES)}, type(self).__name__)
        if self._files is not None:
            self._files.expect_all()
        super()._load_from_state_dict(state, prefix, *rest)
        self._update = int(self.updates)


def _mark_as_sorted(owner: ReferenceType[PartialFC], parameter: Tensor) -> None:
    """Autograd forgets that the rows of a gradient ascend; without the mark they would be sorted and copied."""
    rows, gradient = owner(), parameter.grad
    # That of several passes has more rows, and some of them twice.
    if rows is not None and gradient is not None and gradient.is_sparse and gradient._nnz() == rows._count_taken:
        gradient._coalesced_(True)


def _checked_rates(given: float | Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Pairs of an update and the rate from there on, ascending, the first one of update 0."""
    rates = [(0, float(given))] if isinstance(given, int | float) else [(start, float(rate)) for start, rate in given]
    starts = [start for start, _ in rates]
    if not starts or starts[0] != 0 or any(first >= second for first, second in pairwise(starts)):
        raise ConfigError(
            f"PartialFC sample_rate has the updates {starts}, but the first must be 0, and each later than the last, "
            "as in [[0, 0.1], [20000, 0.3]]."
        )
    for _, rate in rates:
        in_range("PartialFC sample_rate", rate, 0.0, 1.0, low_open=True)
    return rates


def _take(parameter: Tensor, taken: Tensor, memory: ReusedMemory) -> Tensor:
    rows: Tensor = _Take.apply(parameter, taken, memory)  # type: ignore[no-untyped-call]
    return rows


class _Take(torch.autograd.Function):
    """Some rows of a parameter, whose gradient has values for these alone."""

    @staticmethod
    def forward(context: Any, parameter: Tensor, taken: Tensor, memory: ReusedMemory) -> Tensor:
        context.save_for_backward(taken)
        context.shape = parameter.shape
        rows = memory.empty(torch.Size((len(taken), *parameter.shape[1:])), parameter)
        return torch.index_select(parameter, 0, taken, out=rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (taken,) = context.saved_tensors
        # Torch 2.11 warns of checks that are left out by this argument alone.
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
            rows = torch.sparse_coo_tensor(taken.unsqueeze(0), gradient, context.shape, is_coalesced=True)
        return rows, None, None
