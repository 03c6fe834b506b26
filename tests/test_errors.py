"""Text of others, as messages show it."""

import pytest

from errors import plain, plain_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two lines\r\nand a\ttab, Größe 尺寸 👍🏽", "two lines\nand a\ttab, Größe 尺寸 👍🏽"),
        ("\x1b[31mred\x1b[0m \x07 \x9b2J", r"\x1b[31mred\x1b[0m \x07 \x9b2J"),
        ("half of \ud83d", r"half of \ud83d"),
        ("erased\rover", r"erased\rover"),
        ("user\u202etxt.exe \u2066x\u2069", r"user\u202etxt.exe \u2066x\u2069"),
    ],
)
def test_text_of_others_is_shown_as_text(text, shown):
    assert plain(text) == shown
    assert plain(shown) == shown


def test_text_of_others_in_a_line():
    assert plain_line(" two\r\nlines \x07\n\n\tand a tab") == r"two lines \x07 and a tab"
