"""Options that several commands have."""

from typing import Annotated

import typer

from facelab.cli_names import one_of


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
    str, typer.Option(help="last, best or step-<update>", autocompletion=one_of("last", "best"))
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda", autocompletion=one_of("auto", "cpu", "cuda"))]
