"""Answers in parts: the same page in gzip, for those who take it."""

import gzip
from collections.abc import Callable

import pytest

from host_backend.api.utility import utility_app
from host_backend.steps import Steps, Work
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app

PAGE = (b"first " * 9000, b"last\n")


def page_of(parts: tuple[bytes, ...]) -> Callable[[], Work[tuple[bytes, ...]]]:
    def page() -> Work[tuple[bytes, ...]]:
        yield None
        return parts

    return page


@pytest.mark.parametrize(
    ("offer", "compressed"),
    [
        (None, False),
        ("gzip", True),
        ("deflate, GZip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, identity", False),
        ("br, xgzip, *", False),
    ],
)
def test_a_page_of_metrics_comes_in_gzip_if_that_is_taken(offer: str | None, *, compressed: bool) -> None:
    app = utility_app([], MemoryWatermarkStore(), dict, lambda: False, page_of(PAGE), Steps())
    answer = ask_app(app, "GET", "/metrics", headers={} if offer is None else {"accept-encoding": offer})
    assert answer.status == 200
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers.get("content-encoding") == ("gzip" if compressed else None)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert (gzip.decompress(answer.body) if compressed else answer.body) == b"".join(PAGE)
