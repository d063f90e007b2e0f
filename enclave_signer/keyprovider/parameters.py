"""Which key the parameters of `--encryption-key provider:NAME:PARAMETERS` name.

kbs:///default/key/k1                      the key
cc_kbc::kbs:///default/key/k1              the same, as guides of Confidential Containers write it
keyid=kbs:///default/key/k1::algorithm=A256GCM    the same, as `coco_keyprovider` reads it
cc_kbc::null, Enabled                      none: the one that is configured (`Enabled` is what no parameters arrive as)
"""

from enclave_signer.keyprovider.errors import BadRequest
from enclave_signer.keyprovider.packets import ALGORITHM, MAX_KEY_ID_CHARS
from enclave_signer.keyprovider.strict_json import text

_COCO = "cc_kbc::"
_NO_KEY = frozenset({"", "null", "Enabled"})
_KEY_ID, _ALGORITHM = "keyid", "algorithm"


def key_id_of(parameters: str | None) -> str | None:
    """Return the id of the key that they name; None: they name none.

    Raises:
        BadRequest: They ask for something that is not done here.
    """
    if parameters is None:
        return None
    named = parameters.removeprefix(_COCO)
    if named in _NO_KEY:
        return None
    if named.startswith((f"{_KEY_ID}=", f"{_ALGORITHM}=", "keypath=", "sample=")):
        return _of_pairs(named)
    return text(named, "the id of the key", MAX_KEY_ID_CHARS)


def _of_pairs(named: str) -> str | None:
    found: dict[str, str] = {}
    for pair in named.split("::"):
        name, equals, value = pair.partition("=")
        if not equals or name not in {_KEY_ID, _ALGORITHM} or name in found:
            raise BadRequest(
                f"parameters: {name[:40]!r} is not taken: keyid=ID and algorithm={ALGORITHM} are, each once; "
                "the key itself is never read from a client's file"
            )
        found[name] = value
    if found.get(_ALGORITHM, ALGORITHM) != ALGORITHM:
        raise BadRequest(f"parameters: algorithm must be {ALGORITHM}")
    return text(found[_KEY_ID], "the id of the key", MAX_KEY_ID_CHARS) if _KEY_ID in found else None
