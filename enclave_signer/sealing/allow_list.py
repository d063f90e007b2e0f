"""Which keys may seal and open here, and under which identities: a list of the image's own, asked before any provider.

- *Sealing* is allowed under exact names only. Otherwise anyone who reaches the enclave could have new keys
  sealed under a key of their own, and open them elsewhere.
- *Opening* is allowed under those names, and under others or all that begin with a prefix that ends at a `/`.
- A name that is not given is the only one that there is.
"""

from dataclasses import dataclass

from enclave_signer.errors import SealingRefused
from enclave_signer.sealing.reseal_rules import covers

#: Characters of a stranger's name, and names of our own, in one refusal.
_SHOWN_CHARS = 200
_SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowList:
    """What the image's configuration allows one sealer.

    Args:
        identity_providers: Exact names, at least one.
        seal_keys: Exact names of keys (KEKs) that may seal, and open.
        open_keys: Exact names, or prefixes that end at a `/`, of keys that may only open.
    """

    identity_providers: tuple[str, ...]
    seal_keys: tuple[str, ...]
    open_keys: tuple[str, ...] = ()

    def identity_provider(self, asked: str | None) -> str:
        """Return the identity provider that a session gets.

        Raises:
            SealingRefused: What it asks for is not allowed, or it asks for none of several.
        """
        name = _asked_or_only(asked, self.identity_providers, "identity provider", "wip_provider_path")
        if name not in self.identity_providers:
            raise SealingRefused(_not_allowed("identity provider", name, self.identity_providers))
        return name

    def key(self, asked: str | None) -> str:
        """Return the key that a session seals with, and opens blobs with that name none.

        Raises:
            SealingRefused: What it asks for is not allowed, or it asks for none of several.
        """
        name = _asked_or_only(asked, self.seal_keys, "key", "encryption_key_path")
        self.check_opening(name)
        return name

    def check_sealing(self, key: str) -> None:
        """Do nothing if a key may seal.

        Raises:
            SealingRefused: It may not.
        """
        if key not in self.seal_keys:
            raise SealingRefused(_not_allowed("key for sealing", key, self.seal_keys))

    def check_opening(self, key: str) -> None:
        """Do nothing if a key may open.

        Raises:
            SealingRefused: It may not.
        """
        allowed = (*self.seal_keys, *self.open_keys)
        if not any(covers(each, key) for each in allowed):
            raise SealingRefused(_not_allowed("key", key, allowed))

    def opens(self, name: str) -> bool:
        """Whether this key may open, or one that begins so, up to a `/`."""
        return any(covers(each, name) or covers(name, each) for each in (*self.seal_keys, *self.open_keys))


def _asked_or_only(asked: str | None, allowed: tuple[str, ...], what: str, field: str) -> str:
    if asked:
        return asked
    if len(allowed) != 1:
        raise SealingRefused(f"Initialize names no {what}, and this image allows {len(allowed)}: set {field}")
    return allowed[0]


def _not_allowed(what: str, name: str, allowed: tuple[str, ...]) -> str:
    more = f" and {len(allowed) - _SHOWN_NAMES} more" if len(allowed) > _SHOWN_NAMES else ""
    shown = ", ".join(allowed[:_SHOWN_NAMES]) or "none"
    return f"this image does not allow the {what} {name[:_SHOWN_CHARS]!r}; it allows {shown}{more}"
