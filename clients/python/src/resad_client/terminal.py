"""A terminal that prints no control characters of file names and of other people's text."""

from collections.abc import Iterable
from typing import Any

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
