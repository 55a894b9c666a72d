"""placeholder"""


def document_bytes() -> bytes:
    return b"{}"
