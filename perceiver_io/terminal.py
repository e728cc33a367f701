"""Text on a terminal: what files and servers say can neither move the cursor there, nor fill the screen."""

import unicodedata

# Of an error, and of a name in a list.
_LONGEST_LINE = 1_000
LONGEST_NAME = 200
# Controls, invisible formatting, halves of characters, and separators of lines. The two joiners are part of scripts.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT = "\n\t\u200c\u200d"


def printable(text: str) -> str:
    """Replaces what a terminal would act on by its code; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in _KEPT or unicodedata.category(character) not in _ESCAPED
        else character.encode("unicode_escape").decode()
        for character in text
    )


def one_line(text: str, longest: int = _LONGEST_LINE) -> str:
    """Maps a text to a printable line of bounded length."""
    # Only as much as can be shown is gone through: a hostile file may hold megabytes.
    line = printable(" ".join(text[: 8 * longest].split()))
    if len(line) <= longest and len(text) <= 8 * longest:
        return line
    return f"{line[: longest - 1]}…"
