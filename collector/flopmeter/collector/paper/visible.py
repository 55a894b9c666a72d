"""Text from outside made safe to look at: nothing in it moves a cursor, turns the reading direction, or breaks a line. Pure."""

import unicodedata

#: Categories whose characters show nothing, or act on what stands beside them: controls, formats (zero-width and
#: direction marks), surrogates, private use, line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """`text` on one line, each hidden character as its code point, ⟨U+202E⟩."""
    return "".join(c if unicodedata.category(c) not in _HIDDEN else f"⟨U+{ord(c):04X}⟩" for c in text)
