"""Text files."""

import codecs
from pathlib import Path

from perceiver_io.media.border import UnreadableError

# Far more than a model reads; the file is read whole.
MAX_BYTES = 64 * 2**20
# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Reads a text file: UTF-8, or what its byte order mark says, which is no part of the text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another encoding, or a file of more than `MAX_BYTES`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no text file at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}; give a part of it")
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
