"""What tests of several files share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.doubles.processes import Enclave, running_local_enclave

if TYPE_CHECKING:
    from tests.doubles.certificates import Authority
    from tests.doubles.kbs import KbsDouble
    from tests.doubles.kbs_broker import Broker


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """A running daemon that seals under a key file, one per module."""
    with running_local_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture(scope="module")
def key_broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[KbsDouble, Authority]]":
    """The double of a key broker, and the authority of its certificate, one per module."""
    from tests.doubles.kbs import running_kbs

    with running_kbs(tmp_path_factory.mktemp("kbs")) as both:
        yield both


@pytest.fixture
def broker(key_broker: "tuple[KbsDouble, Authority]") -> "Broker":
    """That key broker without anything that was asked of it before."""
    from tests.doubles.kbs_broker import broker_as_new

    return broker_as_new(*key_broker)
