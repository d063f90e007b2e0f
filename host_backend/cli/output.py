"""Standard output that cannot take a text: a locale without a character, a full disk."""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """A file that remembers why it could not be written: the error itself may end up anywhere, or nowhere."""

    failure: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some of the data; see `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def prepare() -> None:
    """Open standard output again, so that `failure` knows of it, and `?` takes the place of what the locale lacks."""
    stream = sys.stdout
    stream.flush()
    descriptor = _Descriptor(stream.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(descriptor), stream.encoding, errors="replace", line_buffering=stream.isatty()
    )


def failure() -> OSError | None:
    """Flush standard output; return why something could not be written, and drop the rest then."""
    with suppress(OSError):
        sys.stdout.flush()
    descriptor = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    problem = descriptor.failure if isinstance(descriptor, _Descriptor) else None
    if problem is not None:
        # Python flushes again at its end, and would complain then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return problem
