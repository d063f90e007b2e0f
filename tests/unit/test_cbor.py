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
