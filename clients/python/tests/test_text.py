"""What is printed: counts with their noun, and file names that steer no terminal and betray no password."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from resad_client.terminal import SafeConsole
from resad_client.text import counted, printable

HOSTILE = "eye\x1b]0;owned\x07\x1b[2J\u202egpj.exe\r"


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (1, ("photograph",), "1 photograph"),
        (0, ("photograph",), "0 photographs"),
        (2, ("photograph",), "2 photographs"),
        (1, ("memory", "memories"), "1 memory"),
        (12_345, ("memory", "memories"), "12,345 memories"),
    ],
)
def test_a_count_agrees_with_its_noun(number: int, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


@given(st.text())
def test_what_is_printable_steers_no_terminal(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert shown.encode().decode() == shown


@given(st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters="@")))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HTTP://user:pw@host/x.jpg", "HTTP://...@host/x.jpg"),
        ("simplecache::http://user:pw@host/x", "simplecache::http://...@host/x"),
        ("no such file: https:/user:p@w@host/x", "no such file: https:/...@host/x"),
        ("s3://bucket/a@b:c.jpg", "s3://bucket/a@b:c.jpg"),
        ("http://127.0.0.1:8000/a@b", "http://127.0.0.1:8000/a@b"),
    ],
)
def test_a_password_in_an_address_is_not_repeated(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_console_prints_no_control_character_of_a_name() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, width=200)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, style="red")
    console.print(table)
    console.print(HOSTILE)
    console.say(f"{HOSTILE}\nforged")
    text = file.getvalue()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert text.count(r"eye\x1b]0;owned\x07\x1b[2J\u202egpj.exe\r") == 5
    assert text.endswith(r"\r\nforged" + "\n")


def test_styles_are_still_printed() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, color_system="standard")
    console.print("[red]no[/]")
    console.say("[red]", style="green")
    assert file.getvalue() == "\x1b[31mno\x1b[0m\n\x1b[32m[red]\x1b[0m\n"
