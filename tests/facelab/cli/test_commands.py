"""Commands are found: those of our modules in their places, those of other packages only when they are called."""

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import typer
from typer.testing import CliRunner

from facelab.cli import commands
from facelab.cli.commands import add_commands
from facelab.errors import ConfigError

SHADE = """
    import sys
    from typing import Annotated
    import typer

    sys.shade_was_imported = True

    def shade(words: list[str], depth: Annotated[int, typer.Option(help="How dark.")] = 1) -> None:
        '''Make it darker.'''
        typer.echo(f"{depth} {words}")
        if depth > 3:
            raise typer.Exit(3)

    more = typer.Typer()

    @more.command("one")
    def one() -> None: typer.echo("first")

    @more.command("two")
    def two() -> None: typer.echo("second")
"""

Install = Callable[..., typer.Typer]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that installs packages with entry points for commands, and gives the application."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delattr(sys, "shade_was_imported", raising=False)
    (tmp_path / "shader.py").write_text(dedent(SHADE))
    monkeypatch.delitem(sys.modules, "shader", raising=False)

    def make(*packages: tuple[str, dict[str, str]], summary: str = "Darkens images.") -> typer.Typer:
        for name, points in packages:
            info = tmp_path / f"{name}-0.1.dist-info"
            info.mkdir()
            said = f"Summary: {summary}\n" if summary else ""
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n{said}")
            lines = "".join(f"{command} = {target}\n" for command, target in points.items())
            (info / "entry_points.txt").write_text(f"[facelab.commands]\n{lines}")
        app = typer.Typer(name="facelab", rich_markup_mode="rich")
        add_commands(app)
        return app

    return make


def called(app: typer.Typer, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_command_of_another_package_is_listed_without_being_imported(install: Install) -> None:
    app = install(("darkness", {"shade": "shader:shade"}))
    code, text = called(app, "--help")
    assert code == 0
    assert text.index("train") < text.index("Commands of other packages") < text.index(" shade ")
    assert "Darkens images (the package 'darkness')." in text
    assert not hasattr(sys, "shade_was_imported")


def test_a_package_need_not_describe_itself(install: Install) -> None:
    assert (
        "Of the package 'darkness'."
        in called(install(("darkness", {"shade": "shader:shade"}), summary=""), "--help")[1]
    )


def test_it_gets_its_words_options_and_help(install: Install) -> None:
    app = install(("darkness", {"shade": "shader:shade"}))
    assert called(app, "shade", "a", "--depth", "2", "b") == (0, "2 ['a', 'b']\n")
    assert called(app, "shade", "a", "--depth", "4")[0] == 3
    code, text = called(app, "shade", "--help")
    assert code == 0
    assert "Make it darker." in text
    assert "How dark." in text
    assert "Usage: facelab shade [OPTIONS] {words}..." in text
    code, text = called(app, "shade", "--deep", "a")
    assert code == 2
    assert "No such option: --deep" in text


def test_an_application_is_a_group(install: Install) -> None:
    app = install(("darkness", {"more": "shader:more"}))
    assert called(app, "more", "two") == (0, "second\n")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_such_module:shade", "cannot import 'no_such_module:shade', which the package 'darkness' names as the"),
        (
            "shader:shadow",
            "cannot import 'shader:shadow', .* command 'shade': .*'shadow'.* Mend or uninstall the package",
        ),
        ("broken:shade", "cannot import 'broken:shade', .*invalid syntax"),
        ("shader:__name__", "'shader:__name__', which the package 'darkness' .* is neither a function nor a Typer app"),
    ],
)
def test_one_that_cannot_be_imported_is_refused_and_breaks_no_other(
    install: Install, tmp_path: Path, target: str, sentence: str
) -> None:
    (tmp_path / "broken.py").write_text("this is no Python\n")
    app = install(("darkness", {"shade": target}), ("light", {"more": "shader:more"}))
    with pytest.raises(ConfigError, match=sentence):
        called(app, "shade", "a")
    assert called(app, "--help")[0] == 0
    assert called(app, "more", "one") == (0, "first\n")


def test_a_name_that_two_packages_want_is_nobodys(install: Install) -> None:
    app = install(("darkness", {"shade": "shader:shade"}), ("dusk", {"shade": "shader:one"}))
    with pytest.raises(
        ConfigError, match="'shade' comes from several: the package '.*', the package '.*'; uninstall all"
    ):
        called(app, "shade", "a")


def test_a_name_of_ours_stays_ours(install: Install) -> None:
    app = install(("darkness", {"cite": "shader:shade"}))
    assert called(app, "cite")[1].startswith("@")


def test_every_module_with_a_command_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new file is all that a command takes."""
    (tmp_path / "greet.py").write_text(
        "from facelab.cli.commands import command\n\n\n"
        '@command("greet", place=15)\ndef greet_command() -> None:\n    """Say hello."""\n    print("hello")\n'
    )
    monkeypatch.setattr(commands.cli, "__path__", [*commands.cli.__path__, str(tmp_path)])
    monkeypatch.setattr(commands, "_COMMANDS", list(commands._COMMANDS))
    app = typer.Typer()
    add_commands(app)
    assert called(app, "greet") == (0, "hello\n")
    text = called(app, "--help")[1]
    assert text.index("train ") < text.index("greet ") < text.index("test ")
    del sys.modules["facelab.cli.greet"]


def test_no_name_is_given_twice() -> None:
    names = [entry[1] for entry in (*commands._COMMANDS, *commands._GROUPS)]
    assert len(names) == len(set(names))
