"""Consensus messages as a baker sends them, made here so that the first look needs no node."""

#: A chain of tests, where no funds live.
CHAIN = bytes.fromhex("b3d79f99")


def attestation(level: int, *, payload: bytes = b"\x22" * 32) -> bytes:
    """Return an attestation of round 0 in the form without a slot, as tz4 bakers sign it."""
    return b"\x13" + CHAIN + b"\x11" * 32 + b"\x29" + level.to_bytes(4, "big") + bytes(4) + payload
