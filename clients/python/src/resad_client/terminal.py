"""What every command line shares: a terminal that other people's text cannot steer, and the option `--version`."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from resad_client.text import printable


class SafeConsole(Console):
    """A console of rich whose tables, lines and bars show control characters as `printable` does.

    Styles and movements of the cursor that rich itself makes stay: they are no text.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` as rich shows it, made printable before its width is measured."""
        return super().render_str(printable(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`, made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, keep="\n"), segment.style)

    def say(self, text: str, **options: Any) -> None:
        """Print one line without markup: a line break in `text` is shown, not printed."""
        self.print(printable(text), highlight=False, soft_wrap=True, markup=False, **options)


def version_option(command: str, *, package: str) -> Any:
    """The option `--version` of a command: prints its name and the version of the package, and ends it.

    For a parameter as `Annotated[bool, version_option(...)] = False`.
    """

    def print_version(requested: bool) -> None:
        if requested:
            typer.echo(f"{command} {version(package)}")
            raise typer.Exit

    return typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
