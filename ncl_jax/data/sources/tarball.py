"""Tar files of others, read member by member, never unpacked.

`tarfile` reads what stands before a member, such as its long name, whole and with patterns that can take for ever.
Here that is skipped: no archive that is read has names or sizes that need it.
"""

import tarfile
from collections.abc import Callable, Iterator

from ncl_jax.runtime.compressed import Expanded

BLOCK = tarfile.BLOCKSIZE
MOST_EXTENDED = 1 << 16  # bytes of times and owners, as tar programs of today write them before a member
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE)


def members(stream: Expanded, name: Callable[[tarfile.TarInfo], str]) -> Iterator[tuple[str, bytes]]:
    """The members of a tar file and their contents, `b""` for what is not a file.

    Args:
      stream: the tar file.
      name: gives what a member is called, and raises for one that must not be there; called before it is read.

    Raises:
      tarfile.TarError, EOFError: it is damaged or cut short; what `stream` raises, at its end as well.
    """
    while (block := stream.read(BLOCK)).strip(b"\0"):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.type in _EXTENDED and 0 <= member.size <= MOST_EXTENDED:
            _content(stream, member.size)
            continue
        called = name(member)
        yield called, _content(stream, member.size if member.isreg() else 0)
    while stream.read(1 << 20):  # to the end, where the checksum is
        pass


def _content(stream: Expanded, size: int) -> bytes:
    content = stream.read(size)
    padding = stream.read(-size % BLOCK)
    if len(content) + len(padding) < size + -size % BLOCK:
        raise EOFError("a member ends too early")
    return content
