import gc
import sys
import tracemalloc

import pytest

from enclave_signer.protocol import cbor
from enclave_signer.protocol.errors import BadMessage

ARRAY, MAP = (b"\x81", b"\x80"), (b"\xa1\x61k", b"\xa0")


@pytest.mark.parametrize(("holding", "empty"), [ARRAY, MAP])
@pytest.mark.parametrize("limit", [1, 4, 16])
def test_a_container_counts_though_it_is_empty(holding: bytes, empty: bytes, limit: int) -> None:
    for innermost in (empty, holding + b"\x01"):
        cbor.decode(holding * (limit - 1) + innermost, max_depth=limit)
        with pytest.raises(BadMessage, match="nested deeper"):
            cbor.decode(holding * limit + innermost, max_depth=limit)


def test_bytes_that_look_like_empty_containers_do_not_count() -> None:
    assert cbor.decode(b"\x81\x42\x80\xa0", max_depth=1) == [b"\x80\xa0"]


def test_a_frame_full_of_containers_takes_no_call_for_each() -> None:
    calls = []
    # What ends other tests' garbage makes calls, too.
    gc.disable()
    sys.setprofile(lambda _frame, event, _argument: calls.append(event) if event == "call" else None)
    try:
        cbor.decode(b"\x99\xff\xff" + b"\x80" * 0xFFFF, max_depth=4)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert len(calls) < 20


@pytest.mark.parametrize("length", [2**16, 2**31 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", range(2, 6))
def test_a_length_that_is_only_announced_takes_no_memory(kind: int, length: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage):
            cbor.decode(bytes([kind << 5 | 27]) + length.to_bytes(8, "big") + b"\x00" * 1000, max_depth=4)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
