"""Text for people: counts with their noun, names without control characters, addresses without passwords.

Apart from `terminal`, which prints it: the server and its libraries import this, and neither rich nor typer.
"""

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 photograph`, `2 photographs`, `1,200 memories`.  plural: where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`; did you mean A or B?`, of the names most like a misspelled one; empty if none is like it."""
    names = sorted(valid)
    similar = get_close_matches(word, names, n=1, cutoff=0.6)
    if not similar:
        # A name without its section, or in the wrong one.
        last = word.rpartition(".")[2]
        ends = {name: name.rpartition(".")[2] for name in names}
        close = get_close_matches(last, set(ends.values()), n=1, cutoff=0.7)
        similar = [name for name, end in ends.items() if end in close][:2]
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that steer a terminal or break its lines: control and format characters (escape sequences,
changes of the writing direction), bytes that are no text, line and paragraph separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Format characters that belong into words of some scripts."""
_SECRET: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:[/\\]{1,3})[^/\\\s@]*:(?!\d+(?:/|\s|$))\S*@")


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` for a terminal or a log: control characters as `\x1b`, and no password in an address.

    File names, and names of cameras and patients in a CSV, may hold any character: raw, they could color or erase
    what is printed, add lines to it, or make the terminal send keys.

    Args:
        keep: characters that stay as they are.
    """
    safe = text
    if not text.isprintable():
        safe = "".join(letter if letter in keep else _visible(letter) for letter in text)
    return _SECRET.sub(r"\g<scheme>...@", safe)


def _visible(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _UNSAFE:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
