"""Where a training step goes, as an aligned table, from what torch's profiler saw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch._C._autograd import DeviceType

from facelab.engine.phases import PREFIX, Phase

MOST_LETTERS = 48  # of a name; those of kernels are longer than a line


@dataclass(frozen=True)
class Share:
    """What one thing takes of all updates that were recorded.

    Attributes:
        name: Of a phase, an operator or a kernel.
        calls: How often it ran.
        host: Microseconds of the processor.
        device: Microseconds of the GPU.
    """

    name: str
    calls: int
    host: float
    device: float


def phase_shares(events: Sequence[Any]) -> list[Share]:
    """The phases of a step, and what lies between them.

    Kernels count for the phase during which they were launched, in whatever thread: those of a backward pass come from
    autograd's.

    Args:
        events: Those of the profiler, `torch.autograd.profiler_util.FunctionEvent`.
    """
    ranges = {
        name: [event.time_range for event in _on_host(events) if event.name == PREFIX + name]
        for name in get_args(Phase)
    }
    launches = [event for event in _on_host(events) if event.kernels]
    shares = []
    for name, ours in ranges.items():
        within = [one for one in launches if any(each.start <= one.time_range.start < each.end for each in ours)]
        shares.append(Share(name, len(ours), sum(each.elapsed_us() for each in ours), sum(map(_device_time, within))))
    every = [each for ours in ranges.values() for each in ours]
    span = max(each.end for each in every) - min(each.start for each in every) if every else 0.0
    rest = Share(
        "rest",
        0,
        max(span - sum(share.host for share in shares), 0.0),
        max(sum(map(_device_time, launches)) - sum(share.device for share in shares), 0.0),
    )
    return [*(share for share in shares if share.calls), rest]


def operator_shares(averages: Iterable[Any], *, on_device: bool) -> list[Share]:
    """Operators of torch, or kernels of the device, without what they call; most time first.

    Args:
        averages: Those of the profiler, `torch.autograd.profiler_util.FunctionEventAvg`.
        on_device: Whether kernels are meant.
    """
    shares = [
        Share(one.key, one.count, one.self_cpu_time_total, one.self_device_time_total)
        for one in averages
        if (one.device_type != DeviceType.CPU) == on_device and not one.key.startswith(PREFIX)
    ]
    return sorted(shares, key=lambda share: (share.device, share.host), reverse=True)


def profile_table(title: str, shares: Sequence[Share], updates: int, whole: Share | None = None) -> str:
    """An aligned table: milliseconds and share of a step, on the processor and, where one worked, on the GPU.

    Args:
        title: Over the names.
        shares: The rows.
        updates: Which all of them took.
        whole: What shares are of; the sum of the rows by default.
    """
    whole = whole or total(shares)
    heads = [title, "calls", "host ms", "%", *(["GPU ms", "%"] if whole.device else [])]
    rows = [heads]
    for share in shares:
        calls = f"{share.calls / updates:.4g}" if share.calls else ""
        figures = [(share.host, whole.host), *([(share.device, whole.device)] if whole.device else [])]
        cells = [
            text for part, of in figures for text in (f"{part / updates / 1000:.2f}", f"{100 * part / (of or 1):.1f}")
        ]
        rows.append([share.name[:MOST_LETTERS], calls, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def total(shares: Sequence[Share]) -> Share:
    """The sum of some shares."""
    return Share("step", 0, sum(share.host for share in shares), sum(share.device for share in shares))


def _on_host(events: Sequence[Any]) -> list[Any]:
    return [event for event in events if event.device_type == DeviceType.CPU]


def _device_time(event: Any) -> float:
    return float(sum(kernel.duration for kernel in event.kernels))
