"""Files that hold secret keys among other things, and forms that hold none that can be taken.

No text here repeats anything of the input.

Source: Octez' `secret_keys` and the output of `show address … -S`; Signatory's `secret.json`, which has the same form; RFC
7292 and 7517.
"""

import re
from codecs import BOM_UTF8

from host_backend import strict_json
from host_backend.errors import MalformedRequest

#: Lines of `octez-client show address NAME -S`.
_SHOWN = re.compile(rb"^Secret Key: (\S+)\r?$", re.MULTILINE)
_JSON_BEGINS = (b"[", b"{")
_HEX = re.compile(r"(0x)?([0-9a-fA-F]{64}|[0-9a-fA-F]{128})")
_WORDS = re.compile(r"[a-z]+( [a-z]+)+")
#: Of a mnemonic. Source: BIP 39.
_WORD_COUNTS = (12, 15, 18, 21, 24)
_QUOTES = ("'", '"')
#: How a PKCS#12 file begins behind its outer length: version 3.
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x80)\x02\x01\x03", re.DOTALL)
_RAW_SIZES = (32, 64)
_URIS = {
    "ledger://": "the address of a key in a Ledger: it cannot be taken out of the device",
    **dict.fromkeys(
        ("http://", "https://", "tcp://", "unix:", "remote:"),
        "the address of a remote signer: the key is there and not in this file",
    ),
    "pkcs11:": "the address of a key in an HSM: it is there and not in this file",
    "aggregate_": "a key in the form of old wallets for BLS: show it with octez-client, which gives a BLsk",
}
#: Bytes of a wallet: some thousands of keys.
MAX_WALLET_BYTES = 1024 * 1024
_PEM_LABELS = {
    b"OPENSSH PRIVATE KEY": "this is a key of OpenSSH, in its own form: give it in PKCS#8",
    b"RSA PRIVATE KEY": "this is a key of RSA, which Tezos does not have",
    b"PUBLIC KEY": "this is a public key",
    b"CERTIFICATE": "this is a certificate, which has a public key only",
}


def secrets_in(data: bytes) -> list[bytes]:
    """Return each secret key in a wallet, as a text or file of its own; other input as it is.

    Args:
        data: The whole input.

    Raises:
        MalformedRequest: It is JSON, and no wallet; the text names what it is.
    """
    text = data.removeprefix(BOM_UTF8).lstrip()
    if text.startswith(_JSON_BEGINS):
        return _from_json(text)
    return _SHOWN.findall(data) or [data]


def _from_json(data: bytes) -> list[bytes]:
    try:
        value = strict_json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedRequest(
            "this begins like JSON and is not valid JSON, or names something twice: nothing was read"
        ) from None
    if isinstance(value, dict) and "kty" in value:
        raise MalformedRequest("this is a JSON Web Key (JWK), which is not read: give the key in PEM, or base58")
    entries = value if isinstance(value, list) else [value]
    keys = [entry.get("value") for entry in entries if isinstance(entry, dict)]
    texts = [key for key in keys if isinstance(key, str)]
    if not texts or len(texts) != len(entries):
        raise MalformedRequest(
            "this is JSON, but not a list of keys with `name` and `value`, as Octez' secret_keys and Signatory's secret.json are"
        )
    return [text.encode(errors="surrogatepass") for text in texts]


def form_of_text(text: str) -> str | None:
    """Return what a text is that is no secret key, and what to do; None where that is not seen."""
    for beginning, what in _URIS.items():
        if text.startswith(beginning):
            return f"this is {what}"
    if text.startswith(_QUOTES) and text.endswith(_QUOTES):
        return "this is a text in quotation marks: remove them"
    if _HEX.fullmatch(text):
        return "this looks like a key in hex, which does not name its curve: give it in base58"
    if _WORDS.fullmatch(text) and text.count(" ") + 1 in _WORD_COUNTS:
        return "these look like the words of a mnemonic: `octez-client import keys from mnemonic` makes a key of them"
    return None


def form_of_bytes(data: bytes) -> str | None:
    """Return what bytes are that are no secret key; None where that is not seen."""
    if _PKCS12.match(data):
        return "this is a PKCS#12 file: take the key out of it with `openssl pkcs12 -nocerts`"
    if len(data) in _RAW_SIZES and not data.startswith(b"\x30"):
        return "these may be the bytes of a key, which do not name its curve: give it in base58"
    return None


def form_of_pem(data: bytes) -> str | None:
    """Return what a PEM text is that holds no whole private key; None where that is not seen."""
    if b"\\n" in data:
        return "its line feeds are written as \\n, as in an environment variable: make lines of them, with printf '%b'"
    for label, what in _PEM_LABELS.items():
        if b"-----BEGIN " + label + b"-----" in data:
            return what
    return None
