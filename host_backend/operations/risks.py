"""What an operation can do to the funds of its signer."""

from enum import StrEnum


class Risk(StrEnum):
    """What the worst request of a kind can do."""

    #: Costs a fee at most, or what the chain takes for a fault that it proves.
    NONE = "none"
    #: The account loses funds, or the right to dispose of them.
    MOVES_FUNDS = "moves funds"
    #: Somebody else comes to dispose of the whole account.
    HANDS_OVER = "hands over"


#: How an operation hands an account over, and what to do about it.
HANDS_OVER = {
    "drain_delegate": "it empties the account of the baker that has this consensus key, to wherever the request says",
    "update_consensus_key": "the key that a request registers with it can drain the account: allow it while you need it",
}
