"""What each route takes and answers: one row per route, from which `openapi` makes its description.

A row names the families of errors that a route can refuse with; their statuses are those of `errors`. What does not
depend on the route stands here once: who may ask at all, bugs, and refusals before any route is looked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enclave_signer.protocol.key_types import KeyType
from host_backend.errors import (
    EnclaveRefused,
    EnclaveUnavailable,
    Garbled,
    HookUnavailable,
    HostError,
    KeyNotFound,
    MalformedRequest,
    NotAuthenticated,
    PolicyDenied,
    ProofDenied,
    StoreUnavailable,
    TooLarge,
    TooManyLogins,
    TooManyWait,
    WatermarkRejected,
)

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"


@dataclass(frozen=True, slots=True)
class Access:
    """How clients have to say who they are.

    Attributes:
        tokens: Whether they need a token (`server.jwt`).
        signed: Whether they sign their requests (`server.authorized_keys`).
    """

    tokens: bool = False
    signed: bool = False


#: Open to anyone who reaches the address.
OPEN = Access()


@dataclass(frozen=True, slots=True)
class Answer:
    """One way to answer.

    Attributes:
        status: Of HTTP.
        media: The media type of the body; None: there is no body.
        text: When it is given.
        failure: Whether a body of JSON has the form of a refusal.
    """

    status: int
    media: str | None
    text: str
    failure: bool = True


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a route takes beside a body; `place` is `path`, `query` or `header`."""

    name: str
    place: str
    text: str
    required: bool = True


_REFUSALS: Mapping[type[HostError], str] = {
    MalformedRequest: "the request is not well formed",
    TooLarge: "the body is larger than any message",
    NotAuthenticated: "no credentials, or wrong ones",
    TooManyLogins: "wrong, as were many others just now: wait",
    PolicyDenied: "not allowed by policy",
    ProofDenied: "the policy allows no proof of possession",
    KeyNotFound: "the key is in no vault",
    WatermarkRejected: "could be a double signature: never ask again",
    EnclaveRefused: "the enclave refused, or signed wrongly",
    Garbled: "the enclave's answer cannot be read",
    EnclaveUnavailable: "the enclave is away, or not ready: retry later",
    HookUnavailable: "the policy hook is away: retry later",
    StoreUnavailable: "a store is away: retry later",
    TooManyWait: "too many requests wait: retry later",
}
#: The families that this table has words for; a family below one of them has its status.
FAMILIES = tuple(_REFUSALS)

_BUG = Answer(HostError.http_status, JSON, "a bug, which the log tells of: report it")
#: Given by the server before it looks for a route.
_BEFORE_ROUTES = (
    Answer(400, TEXT, "not an HTTP/1.1 request"),
    Answer(431, None, "the head of the request is too large"),
    Answer(503, TEXT, "too many requests of this address go on after their clients left: retry later"),
)
#: Of paths and methods that are in no row.
ELSEWHERE: Mapping[str, Answer] = {
    "NoSuchPath": Answer(404, TEXT, "there is nothing at this path"),
    "WrongMethod": Answer(405, None, "nothing is done by this method here"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route takes and answers.

    Attributes:
        summary: What it is for.
        good: The member of a good answer's object; empty where it is no such object.
        parameters: In path, query and headers, beside those that say who asks.
        refusals: Families of its refusals, beside those of who may ask.
        takes_message: Whether the body is a message.
        takes_signature: Whether clients that sign their requests must sign this one.
        gives_token: Whether it can be asked without a token, and refuses in plain text.
        status: Of a good answer.
        media: Of a good answer.
        others: Answers that are neither this one nor refusals.
    """

    summary: str
    good: str = ""
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[type[HostError], ...] = ()
    takes_message: bool = False
    takes_signature: bool = False
    gives_token: bool = False
    status: int = 200
    media: str = JSON
    others: tuple[Answer, ...] = ()

    def answers(self, access: Access) -> Iterator[Answer]:
        """Yield every answer; several may have one status."""
        yield Answer(self.status, self.media, f'{{"{self.good}": …}}' if self.good else "ok")
        yield from self.others
        for family in self.refusals:
            yield _refusal(family, TEXT if self.gives_token else JSON)
        if access.signed and self.takes_signature:
            yield _refusal(NotAuthenticated, JSON)
            yield _refusal(TooManyWait, JSON)
        elif self.takes_signature and not access.tokens:
            yield Answer(PolicyDenied.http_status, JSON, "a web page asks")
        if access.tokens and not self.gives_token:
            yield _refusal(NotAuthenticated, TEXT)
        yield _BUG
        yield from _BEFORE_ROUTES

    def takes(self, access: Access) -> Iterator[Parameter]:
        """Yield every parameter but a token."""
        yield from self.parameters
        if access.signed and self.takes_signature:
            yield _AUTHENTICATION
        if access.tokens and not self.gives_token:
            yield _USERNAME


def _refusal(family: type[HostError], media: str) -> Answer:
    return Answer(family.http_status, media, _REFUSALS[family])


_ADDRESSES = [f"{key_type.facts.address}…" for key_type in KeyType]
_PKH = Parameter("pkh", "path", f"The key's hash: {', '.join(_ADDRESSES[:-1])} or {_ADDRESSES[-1]}")
_AUTHENTICATION = Parameter("authentication", "query", "Signature of the request by one of server.authorized_keys")
_USERNAME = Parameter("username", "header", "Whose token it is")
_VERSION = Parameter(
    "version", "query", "How a tz4 key signs: 1, or 2, which is the default and also what 3 means", required=False
)
_BLS_PK = Parameter(
    *("bls_pk", "query"),
    "The key that the proof is for (BLpk…): its own, or one that the policy names; the authentication covers it",
    required=False,
)
_CREDENTIALS = Parameter("username", "header", "Who asks"), Parameter("password", "header", "Its password")

_LOOKED_UP = (MalformedRequest, KeyNotFound, EnclaveRefused, EnclaveUnavailable)
_ALLOWED = (*_LOOKED_UP, PolicyDenied, Garbled, HookUnavailable)

#: Those of `server.address`, by path and method.
PATHS: Mapping[str, Mapping[str, Operation]] = {
    "/keys/{pkh}": {
        "get": Operation("A public key", "public_key", (_PKH,), _LOOKED_UP),
        "post": Operation(
            "Sign a message",
            "signature",
            (_PKH, _VERSION),
            (*_ALLOWED, TooLarge, WatermarkRejected, StoreUnavailable, TooManyWait),
            takes_message=True,
            takes_signature=True,
        ),
    },
    "/bls_prove_possession/{pkh}": {
        "get": Operation(
            "Prove possession of a tz4 key",
            "bls_prove_possession",
            (_PKH, _BLS_PK),
            (*_ALLOWED, ProofDenied),
            takes_signature=True,
        )
    },
    "/authorized_keys": {"get": Operation("Keys that may sign requests", "authorized_keys")},
    "/known_keys": {"get": Operation("Keys that are listed and in service", "known_keys")},
    "/mode": {"get": Operation("What this server is, and how it wants to be asked", "mode")},
    "/openapi.json": {"get": Operation("This description")},
    "/docs": {"get": Operation("This description, for people", media=HTML)},
    "/login": {
        "post": Operation(
            "Get a token",
            parameters=_CREDENTIALS,
            refusals=(NotAuthenticated, TooManyLogins),
            gives_token=True,
            status=201,
            media=TEXT,
        )
    },
}

_REPORT = (
    Answer(
        400,
        JSON,
        "the nonce is missing or not well formed, or there are several vaults and none is named",
        failure=False,
    ),
    Answer(429, JSON, "another nonce came just now: retry in a few seconds", failure=False),
    Answer(503, JSON, "the enclave proves nothing, or is away", failure=False),
)
_REPORT_TAKES = (
    Parameter("nonce", "query", "10 to 74 letters, digits and _.-, chosen by the client"),
    Parameter("vault", "query", "The vault, where there are several", required=False),
)

#: A path, a method in lower case, and the row.
Described = tuple[str, str, Operation]
_NOT_READY = Answer(503, JSON, "no key can sign at this moment", failure=False)
#: Those of `server.utility_address`, which anybody who reaches it may ask.
UTILITY: Sequence[Described] = (
    (
        "/",
        "get",
        Operation(
            "What this host is, and how it does",
            media=HTML,
            others=(Answer(200, JSON, "the same, where JSON is asked for", failure=False),),
        ),
    ),
    ("/healthz", "get", Operation("Whether keys can sign, and why not", others=(_NOT_READY,))),
    ("/health", "get", Operation("The same in one word", others=(_NOT_READY,))),
    ("/livez", "get", Operation("Whether this process lives")),
    ("/metrics", "get", Operation("The metrics, for Prometheus", media=TEXT)),
    ("/openapi.json", "get", Operation("This description")),
    ("/docs", "get", Operation("This description, for people", media=HTML)),
)
#: The one that is there only where tokens are shown.
REPORT: Described = (
    "/attestation",
    "get",
    Operation("A token of the enclave, not verified by this host", parameters=_REPORT_TAKES, others=_REPORT),
)


def operations(access: Access) -> Iterator[Described]:
    """Yield path, method and row of the routes that there are; tokens are given only where they are needed."""
    for path, methods in PATHS.items():
        for method, operation in methods.items():
            if access.tokens or not operation.gives_token:
                yield path, method, operation
