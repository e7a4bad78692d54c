"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from facelab.cli.names import complete_words
from facelab.errors import in_range

if TYPE_CHECKING:
    from facelab.weights.whole_file import Kind

MOST = (1 << 63) - 1
Number = int | float | None


def within(low: float, high: float) -> Callable[[typer.CallbackParam, Number], Number]:
    """Checks the number of an option before the command begins: from low to high, and not NaN."""

    def check(option: typer.CallbackParam, value: Number) -> Number:
        return value if value is None else in_range(str(option.opts[0]), value, low, high)

    return check


def writable(kind: "Kind" = "file") -> Callable[[typer.Context, Path | None], Path | None]:
    """Checks, before the command begins, that something can be written where an option says."""

    def check(context: typer.Context, value: Path | None) -> Path | None:
        if value is not None and not context.resilient_parsing:
            from facelab.weights.whole_file import require_writable

            require_writable(value, kind)
        return value

    return check


def _import(context: typer.Context, modules: list[str] | None) -> list[str] | None:
    if modules and not context.resilient_parsing:  # which is set while a shell completes a line
        from facelab.plugins import import_plugins

        import_plugins(modules)
    return modules


PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="Module to import first; may be repeated.", callback=_import),
]
CheckpointOption = Annotated[
    str, typer.Option(help="last, best or step-<update>", autocompletion=complete_words("last", "best"))
]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu or cuda", autocompletion=complete_words("auto", "cpu", "cuda"))
]
BackendOption = Annotated[
    Literal["torch", "onnxruntime"],
    typer.Option(help="What computes: onnxruntime runs an export of the model on the CPU, made once and kept."),
]
ResizeOption = Annotated[bool, typer.Option(help="Resize aligned faces of another size.")]
AnyPhotoOption = Annotated[bool, typer.Option("--any-photo", help="With --resize: whatever shape they have.")]
