"""The handshake with a key broker (RCAR: auth, attest, resource), and the evidence of this machine for it.

One handshake fetches all keys. Its ephemeral key, its session and its token end with it: the session would be useless
five minutes later, and whoever has them has the keys.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx

from enclave_signer.errors import SealingRefused, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing import kbs_messages as messages
from enclave_signer.sealing.kbs_config import KbsKey
from enclave_signer.sealing.kbs_http import Http, Reply
from enclave_signer.sealing.kbs_jwe import BadJwe, TeeKey, base64url
from enclave_signer.sealing.kbs_kek import sealing_key
from enclave_signer.sealing.kbs_messages import HandshakeLost, Step

#: Where the attestation agent's REST server is in a confidential guest. Source: guest-components, `api-server-rest`.
AGENT_URL = "http://127.0.0.1:8006"
#: Returns evidence of this machine that is bound to 48 bytes.
GetEvidence = Callable[[bytes], Awaitable[object]]
#: Returns the bytes to use, given what was asked for and what was released; raises `SealingRefused` if it is another key.
Use = Callable[[KbsKey, bytes], bytes]
#: What came of asking for each key: the bytes to use, or why there are none.
Fetched = Mapping[KbsKey, bytes | SealingRefused]


class KbsClient:
    """Fetches keys.

    Args:
        http: To the broker.
        tee: The kind of machine.
        evidence: Of this machine.
        use: What to make of a key that was released.
    """

    def __init__(self, http: Http, tee: str, evidence: GetEvidence, use: Use = sealing_key) -> None:
        self._http = http
        self._tee = tee
        self._evidence = evidence
        self._use = use

    async def fetch(self, keys: Sequence[KbsKey]) -> Fetched:
        """Return what comes of each key, by one handshake, or by a second one when the broker gives the first up.

        Raises:
            SealingRefused: The broker does not accept this machine; the text says what to do.
            SealingUnavailable: No answer, retry later.
        """
        try:
            return await self._handshake(keys)
        except HandshakeLost:
            return await self._handshake(keys)

    async def _handshake(self, keys: Sequence[KbsKey]) -> Fetched:
        tee_key = TeeKey()
        jwk = tee_key.jwk
        async with self._http.connection() as connection:
            begun = await self._post(connection, Step.AUTH, messages.auth_body(self._tee))
            nonce, session = messages.read_nonce(begun.body), messages.read_session(begun.set_cookies)
            evidence = await self._evidence(messages.report_data(nonce, jwk))
            cookie = f"kbs-session-id={session}"
            body = messages.attest_body(nonce, jwk, evidence)
            attested = await self._post(connection, Step.ATTEST, body, cookie)
            messages.check_attested(attested.body, jwk)
            return {key: await self._key(connection, key, tee_key, cookie) for key in keys}

    async def _post(self, connection: httpx.AsyncHTTPTransport, step: Step, body: bytes, cookie: str = "") -> Reply:
        reply = await self._http.ask(connection, "POST", f"/kbs/v0/{step}", body=body, cookie=cookie)
        if reply.status != 200:
            raise messages.failure(step, reply.status, reply.body)
        return reply

    async def _key(
        self, connection: httpx.AsyncHTTPTransport, key: KbsKey, tee_key: TeeKey, cookie: str
    ) -> bytes | SealingRefused:
        try:
            reply = await self._http.ask(connection, "GET", f"/kbs/v0/resource/{key.resource}", cookie=cookie)
            if reply.status != 200:
                raise messages.failure(Step.RESOURCE, reply.status, reply.body, key.resource)
            jwe = messages.read_object(Step.RESOURCE, reply.body)
            return self._use(key, tee_key.decrypt(jwe))
        except BadJwe as error:
            return SealingRefused(f"the key broker's answer for {key.resource} does not open: {error}")
        except HandshakeLost:
            raise
        except SealingRefused as error:
            # An old key that is gone keeps no other one back.
            return error


async def sample_evidence(report: bytes) -> object:
    """Return the evidence of the sample machine, which anyone can make."""
    return messages.sample_evidence(report)


def agent_evidence(url: str, limit_s: float) -> GetEvidence:
    """Return what asks the attestation agent.

    Args:
        url: Its scheme, host and port.
        limit_s: Seconds for its answer.
    """
    http = Http("the attestation agent", url, None, limit_s)

    async def evidence(report: bytes) -> object:
        path = f"/aa/evidence?runtime_data={base64url(report)}&encoding=base64"
        async with http.connection() as connection:
            reply = await http.ask(connection, "GET", path)
        if reply.status != 200:
            raise _no_evidence(reply)
        try:
            value: object = json.loads(reply.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise SealingRefused("the attestation agent's answer is no evidence")
        return value

    return evidence


def _no_evidence(reply: Reply) -> SealingRefused | SealingUnavailable:
    text = f"the attestation agent gives no evidence, HTTP status {reply.status}"
    if reply.status >= 500:
        return SealingUnavailable(f"{text} ({shown(reply.body.decode('utf-8', 'replace'))})")
    return SealingRefused(
        f"{text}: its REST server must be of version 0.21 or later, with the feature attestation or all"
    )
