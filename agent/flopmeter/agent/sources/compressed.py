"""Byte streams that may be gzip or zstd: bounded while expanding, and honest about a cut-off end."""

import io
import zlib
from typing import BinaryIO, Protocol

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: Compressed bytes per step. One step expands to at most about 16 MiB: deflate reaches 1030 : 1, and a
#: zstd run-length block makes 128 KiB out of 4 bytes.
_GZIP_STEP = 16_384
_ZSTD_STEP = 512
_MAX_ZSTD_WINDOW = 1 << 27  # memory that a zstd frame may ask for: zstd's own default limit
#: A stream that expands further than this is a decompression bomb; readings reach about 40 : 1.
MAX_EXPANSION = 500
FREE_EXPANSION_BYTES = 64 << 20  # short streams may expand as they like


class ExpansionError(ValueError):
    """The stream expands beyond MAX_EXPANSION."""


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Expanded(io.RawIOBase):
    """Expands members or frames one after another. `cut` is set when the last one has no end."""

    def __init__(self, raw: BinaryIO, *, zstd: bool) -> None:
        super().__init__()
        self._raw = raw
        self._zstd = zstd
        self._step = _ZSTD_STEP if zstd else _GZIP_STEP
        self._inflater: _Inflater | None = None
        self._ready = b""
        self._unused = b""
        self._bytes_in = 0
        self._bytes_out = 0
        self.cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        while not self._ready:
            data = self._unused or self._raw.read(self._step)
            self._unused = b""
            if not data:
                self.cut = self._inflater is not None
                return 0
            self._expand(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _expand(self, data: bytes) -> None:
        if self._inflater is None:
            self._inflater = _zstd_inflater() if self._zstd else zlib.decompressobj(wbits=31)
        self._ready = self._inflater.decompress(data)
        if self._inflater.eof:
            self._unused = self._inflater.unused_data
            self._inflater = None
        self._bytes_in += len(data) - len(self._unused)
        self._bytes_out += len(self._ready)
        if self._bytes_out > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * self._bytes_in):
            raise ExpansionError(f"expands more than {MAX_EXPANSION} times")

    def close(self) -> None:
        self._raw.close()
        super().close()


def _zstd_inflater() -> _Inflater:
    import zstandard

    inflater: _Inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).decompressobj()
    return inflater


def damage_errors() -> tuple[type[Exception], ...]:
    """What a damaged compressed stream raises; asked for when handling, so that zstandard stays lazy."""
    import zstandard

    return (zlib.error, zstandard.ZstdError, ExpansionError)


def expanded(raw: io.BufferedReader) -> tuple[io.BufferedReader, Expanded | None]:
    """`raw`, expanded if its first bytes say gzip or zstd (whatever the name says)."""
    head = raw.peek(4)[:4]
    if head.startswith(_GZIP_MAGIC) or head == _ZSTD_MAGIC:
        stream = Expanded(raw, zstd=head == _ZSTD_MAGIC)
        return io.BufferedReader(stream, 1 << 17), stream
    return raw, None


class _Deflater(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


def deflater(suffix: str) -> tuple[_Deflater | None, int]:
    """A compressor for the suffix (None = plain) and its mode "flush so that a reader sees all"."""
    if suffix == ".gz":
        return zlib.compressobj(6, zlib.DEFLATED, 31), zlib.Z_SYNC_FLUSH
    if suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor(level=6).compressobj(), zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return None, 0
