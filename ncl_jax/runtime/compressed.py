"""Gzip's files of others, of which a small one may expand without end."""

import gzip
import zlib
from typing import BinaryIO

from ncl_jax.errors import DataError

ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)  # of what is cut short or damaged
CHUNK = 1 << 20


class Expanded:
    """The content of a compressed file, read once from its start, and at most `most` bytes of it.

    Args:
      file: what is compressed.
      most: more bytes than such a file can have.
      name: what it is called in the error.
    """

    def __init__(self, file: BinaryIO, most: int, name: object):
        self._stream, self._most, self._name, self._read = gzip.GzipFile(fileobj=file), most, name, 0

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end. Raises DataError behind `most`; `ERRORS` for damage."""
        parts = []
        while size > 0 and (part := self._stream.read(min(size, CHUNK))):
            parts.append(part)
            size, self._read = size - len(part), self._read + len(part)
            if self._read > self._most:
                raise DataError(f"{self._name} expands to more than {self._most:,} bytes, which is too much for it")
        return b"".join(parts)
