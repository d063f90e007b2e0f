"""The protocols whose messages are read, and the bounds that they set: one table for both programs.

- A message does not say of which protocol it is, so every bound is the widest of the table.
- Where Octez' own encoding has the bound, it holds as it is: beyond it there is no such message, and no node reads one.
- Where the encoding has none, as for the DAL bitset, there is room: chains change before signers are updated, and a bound
  that is too narrow costs attestations.
- A protocol without vectors in `tests/vectors` has no row.

Source: Octez `proto_024_PtTALLiN`, `proto_025_PsUshuai`, `proto_alpha`: `lib_parameters/default_parameters.ml` (mainnet),
`constants_repr.ml`, `entrypoint_repr.ml`, `dal_attestations_repr.ml`.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Protocol:
    """What one protocol allows.

    Attributes:
        name: What people call it.
        hash: What nodes call it, base58.
        dal_slots: Slots of the data availability layer.
        dal_lags: Distances, in levels, at which one attestation may speak of them.
        operation_bytes: Of one operation with its signature.
        proposals: Of one delegate, in one operation.
        raw_data_bytes: Of a message to a smart rollup, and of data that it has revealed.
        entry_point_bytes: Of the name of an entry point.
        micheline_depth: Where the type checker gives up.
    """

    name: str
    hash: str
    dal_slots: int
    dal_lags: int
    operation_bytes: int
    proposals: int
    raw_data_bytes: int
    entry_point_bytes: int
    micheline_depth: int

    @property
    def dal_bitset_bits(self) -> int:
        """The bits of the largest DAL bitset that a node takes.

        With one lag it has a bit for each slot. With several it begins with a bit for each lag, and for each lag there may be
        chunks of 8 bits, of which 7 stand for slots.
        """
        if self.dal_lags == 1:
            return self.dal_slots
        chunks = -(-self.dal_slots // 7)
        return self.dal_lags + 8 * self.dal_lags * chunks

    @property
    def dal_bitset_bytes(self) -> int:
        """The bytes of that bitset: 6 bits in the first, 7 in each of the others."""
        return 1 + -(-max(0, self.dal_bitset_bits - 6) // 7)


_TALLINN = Protocol(
    name="024",
    hash="PtTALLiNtPec7mE7yY4m3k26J8Qukef3E3ehzhfXgFZKGtDdAXu",
    dal_slots=32,
    dal_lags=1,
    operation_bytes=32 * 1024,
    proposals=20,
    raw_data_bytes=4096,
    entry_point_bytes=31,
    micheline_depth=10_000,
)
_USHUAIA = replace(
    _TALLINN, name="025", hash="PsUshuai9QapM5TGj1JpuVGkdxz5GykdnEvS6Rh8SUVrARvZLCY", dal_slots=160, dal_lags=5
)
_ALPHA = replace(_USHUAIA, name="alpha", hash="ProtoALphaALphaALphaALphaALphaALphaALphaALphaDdp3zK")
#: Oldest first.
PROTOCOLS = (_TALLINN, _USHUAIA, _ALPHA)

#: How much larger a DAL bitset may be than any protocol of the table has it. As many slots as their index can count, 256,
#: at 16 lags would need five times today's bytes.
DAL_BITSET_ROOM = 8
#: The room for later protocols included.
MAX_DAL_BITSET_BYTES = DAL_BITSET_ROOM * max(protocol.dal_bitset_bytes for protocol in PROTOCOLS)
#: Octez' limit of proposals per delegate.
MAX_PROPOSALS = max(protocol.proposals for protocol in PROTOCOLS)
#: Octez' limit of a message to a smart rollup.
MAX_RAW_DATA_BYTES = max(protocol.raw_data_bytes for protocol in PROTOCOLS)
#: Octez' limit of an entry point's name.
MAX_ENTRY_POINT_BYTES = max(protocol.entry_point_bytes for protocol in PROTOCOLS)
#: Where Octez' type checker gives up; a message of 32 KiB could nest 16 000 deep.
MAX_MICHELINE_DEPTH = max(protocol.micheline_depth for protocol in PROTOCOLS)
