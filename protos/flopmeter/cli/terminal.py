"""What the output can show, decided in this one place: colour, drawing over, which characters, how wide.

https://no-color.org: NO_COLOR, set and not empty, switches colour off. Colour and drawing over are for a terminal that
TERM says can do them; nothing else is ever sent an escape sequence.
"""

import codecs
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

#: Where there is no terminal to ask: a pipe, a log, a mail.
DEFAULT_COLUMNS, DEFAULT_LINES = 80, 24

_HANDLER = "flopmeter.lookalike"
#: ASCII by another name: click takes a stream that calls itself ascii for a mistake, and writes UTF-8 to it.
_ASCII = "flopmeter-ascii"
#: What stands in for what an encoding lacks. One character for one, so that columns stay columns.
_LOOKALIKES = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True)),
        "─": "-",
        "━": "=",
        "╍": "~",
        **dict.fromkeys("┃│", "|"),
        **dict.fromkeys("╋┼", "+"),
        **dict.fromkeys("●■▸→", "*"),
        **dict.fromkeys("○◌", "o"),
        **dict.fromkeys("·…", "."),
        **dict.fromkeys("░▒▓", ":"),
        **dict.fromkeys("–—−", "-"),
        "◆": "#",
        "×": "x",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "⟨": "<",
        "⟩": ">",
        "²": "^2",
        "\N{NO-BREAK SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
    }
)


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the output can show."""

    live: bool  # a screen that can be drawn over
    color: bool
    unicode: bool

    @classmethod
    def of(cls, *, isatty: bool, encoding: str, environ: Mapping[str, str]) -> "Terminal":
        capable = isatty and environ.get("TERM", "") not in ("", "dumb")
        return cls(
            live=capable,
            color=capable and not environ.get("NO_COLOR"),
            unicode=has_unicode(encoding, environ),
        )


def terminal_of(stream: TextIO) -> Terminal:
    return Terminal.of(isatty=stream.isatty(), encoding=stream.encoding or "", environ=os.environ)


def size() -> tuple[int, int]:
    """Columns and lines; COLUMNS and LINES of the environment go first."""
    import shutil

    found = shutil.get_terminal_size((DEFAULT_COLUMNS, DEFAULT_LINES))
    return found.columns, found.lines


def has_unicode(encoding: str, environ: Mapping[str, str]) -> bool:
    """Whether more than ASCII can be shown.

    Python writes UTF-8 under LC_ALL=C too (PEP 540), where the terminal was told to expect ASCII. A locale that nobody
    set says nothing of the terminal; Python makes C.UTF-8 of it (PEP 538).
    """
    if environ.get("PYTHONIOENCODING") or environ.get("PYTHONUTF8") == "1":
        return "utf" in encoding.lower()
    return "utf" in encoding.lower() and environ.get("LC_ALL") not in ("C", "POSIX")


def fall_back() -> None:
    """From here on standard output and errors write a lookalike for each character that they cannot write."""
    codecs.register_error(_HANDLER, _lookalike)
    codecs.register(_ascii_codec)
    for stream in (sys.stdout, sys.stderr):
        encoding = stream.encoding or ""
        if hasattr(stream, "reconfigure") and not has_unicode(encoding, os.environ):
            wide = encoding.lower().startswith(("iso", "latin", "cp", "koi", "mac"))
            stream.reconfigure(encoding=encoding if wide else _ASCII, errors=_HANDLER)


def _ascii_codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        incrementalencoder=found.incrementalencoder,
        incrementaldecoder=found.incrementaldecoder,
        name=_ASCII,
    )


def _lookalike(error: UnicodeError) -> tuple[str, int]:
    """For codecs.register_error: what has no lookalike is shown by its code point, so that nothing is lost."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_as_ascii(c) for c in lacking), error.end


def _as_ascii(character: str) -> str:
    found = character.translate(_LOOKALIKES)
    return (
        found
        if found.isascii()
        else f"\\u{ord(character):04x}"
        if ord(character) < 1 << 16
        else f"\\U{ord(character):08x}"
    )


def document_bytes(text: str, stream: Any) -> None:
    """A document that names its own encoding goes out as UTF-8, whatever the terminal's is."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
    else:
        buffer.write(text.encode("utf-8", "backslashreplace"))
        buffer.flush()
