"""How many clients the limit of open files allows."""

import resource

import pytest

from host_backend import descriptors
from host_backend.descriptors import HOOK_CONNECTIONS, LEAST_SIGNING_PLACES, PER_VAULT, SIGNING_PLACES, signing_places

OTHERS = descriptors.UTILITY_PLACES + PER_VAULT + descriptors.OWN + descriptors.LEAVING
NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "places", "raised"),
    [
        (1024, 1_048_576, SIGNING_PLACES, SIGNING_PLACES + OTHERS),
        (1024, NO_LIMIT, SIGNING_PLACES, SIGNING_PLACES + OTHERS),
        (NO_LIMIT, NO_LIMIT, SIGNING_PLACES, None),
        (100_000, 100_000, SIGNING_PLACES, None),
        (1024, 4096, 4096 - OTHERS, 4096),
        (1024, 1024, 1024 - OTHERS, None),
        (64, 64, LEAST_SIGNING_PLACES, None),
    ],
)
def test_places(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    places: int,
    raised: int | None,
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert signing_places(1, hook=False) == places
    assert set_to == ([] if raised is None else [(raised, hard)])
    told = [f"the limit of open files (ulimit -Hn) allows {places} clients at once, not {SIGNING_PLACES}"]
    assert caplog.messages == ([] if places == SIGNING_PLACES else told)


def test_vaults_and_the_hook_take_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    alone = signing_places(1, hook=False)
    assert signing_places(3, hook=True) == alone - 2 * PER_VAULT - HOOK_CONNECTIONS
