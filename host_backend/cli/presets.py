"""What keys of each kind may sign: the lines for `tezos:`, as `docs/policies.md` explains them."""

#: The chain of funds that are worth something.
MAINNET = "NetXdQprcVkpaWU"

_CONSENSUS = (
    "    allow: {block: , preattestation: , attestation: , attestation_with_dal: }\n    allowed_chains: [{chain}]"
)
_CONSENSUS_TZ4 = (
    "    allow: {block: , preattestation: , attestation: }\n"
    "    allowed_chains: [{chain}]\n"
    "    allow_proof_of_possession: true"
)
_COMPANION = "    allow: {attestation: }\n    allowed_chains: [{chain}]\n    allow_proof_of_possession: true"
_STAKING = (
    "    allow:\n      generic: [reveal, stake, unstake, finalize_unstake, set_delegate_parameters, proposals, ballot]"
)
_REGISTERING = "    allow:\n      generic: [reveal, delegation, update_consensus_key, update_companion_key]"
_PAYING = "    allow:\n      generic: [reveal, transaction]"

_PRESETS = {
    "consensus": _CONSENSUS,
    "companion": _COMPANION,
    "staking": _STAKING,
    "registering": _REGISTERING,
    "paying": _PAYING,
}
PRESETS = tuple(_PRESETS)
#: Of keys that bake, and of no others.
BAKING = ("consensus", "companion")


def policy_lines(pkh: str, preset: str, chain: str) -> list[str]:
    """Return the lines of a key under `tezos:`.

    Args:
        pkh: Its hash.
        preset: One of `PRESETS`.
        chain: The chain on which it signs blocks or attestations.
    """
    text = _CONSENSUS_TZ4 if preset == "consensus" and pkh.startswith("tz4") else _PRESETS[preset]
    return [f"  {pkh}:", *text.replace("{chain}", chain).splitlines()]
