"""ML-DSA-44 (FIPS 204) over BLAKE2b-256 with an empty context, by OpenSSL.

- A private key is the seed of 32 bytes, from which FIPS 204 makes all else.
- Signatures are hedged: 32 random bytes go into each, so the same message gets another signature every time.
- Octez has such keys since its third way of signing: older versions are refused.

Source: FIPS 204, `ML-DSA.KeyGen_internal` and `ML-DSA.Sign`; Octez `src/lib_crypto/mldsa44.ml`, `signature_v3.ml`.
"""

import secrets

from cryptography.exceptions import InvalidSignature as OpenSSLInvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from enclave_signer.curves.base import Curve, KnownAnswer, VersionNotSupported, check_public_key_size, private_key_bytes
from enclave_signer.curves.digest import DigestSigningKey, DigestVerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

_FACTS = KeyType.ML_DSA_44.facts


class MlDsa44SigningKey(DigestSigningKey):
    """An opened ML-DSA-44 key."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        super().__init__(PublicKey(KeyType.ML_DSA_44, self._key.public_key().public_bytes_raw()))

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign the digest of a message, differently each time.

        Raises:
            VersionNotSupported: The version is older than such keys.
        """
        _check_version(version)
        return super().sign(message, version)

    def _sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest)


class MlDsa44VerifyingKey(DigestVerifyingKey):
    """A parsed ML-DSA-44 public key."""

    __slots__ = ("_key",)

    def __init__(self, public_key: PublicKey) -> None:
        super().__init__(public_key)
        self._key = MLDSA44PublicKey.from_public_bytes(public_key.data)

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over the digest of the message.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            VersionNotSupported: The version is older than such keys.
        """
        _check_version(version)
        super().verify(signature, message, version)

    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        try:
            self._key.verify(signature, digest)
        except OpenSSLInvalidSignature:
            return False
        return True


#: The first key of NIST ACVP `ML-DSA-keyGen-FIPS204`, and what dilithium-py 1.5.1, which is not used here otherwise, signs
#: with it deterministically.
_KNOWN_ANSWER = KnownAnswer(
    private_key=bytes.fromhex("93ef2e6ef1fb08999d142abe0295482370d3f43bdb254a78e2b0d5168eca065f"),
    public_key=bytes.fromhex(
        "bc5ff810eb089048b8ab3020a7bd3b16c0e0ca3d6b97e4646c2ccae0bbf19ef7230a19d75adbded52db855e252a719fcbd147ba6"
        "7b2fad14ed0e68fdfe8c65badeacb0911193adfa8794d78f8e3d662a1c49da819fd959e7f078f203c456f8b6e7c9415898e541c7"
        "3032dbd619eaf60f8d64f8683da99eca51220b0aca28464099f547c02777bd37d84a59bd37ed7a8a92633c75d07c793fe7252b58"
        "4abf6a15ee14507e5e193f89864d09ac8727a6d0421f0c19f0e2fbfc213d3fbd70f4f9762cecff231e9c8a7628d3f8b0857b032d"
        "32de62ff8ecbf4008289bf34403665f81a081ad5a85a282f99bab9e5385afbcccf44b74c0196c7545527ec3026da1280c4eb37d0"
        "9cfe3ec4b4910b62eb9815a425c6590fc4ad3fbb225752cc1fc5693f187e7dec4eefbeb6b91bd91c5e2ea6a91d14d097be203fba"
        "0bf937c97507dc007c4caa9b0785892966ff15900924e579d4fba02bda87555f073dae00513e70809abbc711fba2e7649577c42a"
        "fdc24bf7413e51268ad6db6113b7d9191af9d061dbded5d630877650c124f11bc4bdc3fdc6a900f63126f921e838ad0c2275a338"
        "9a39bd99a134504550101cd3e95e6d1496be7de6627df4fd6c28bbf40b30efa9b5c3d5c85ab14a65c02d6d4781ff13d328608554"
        "b6d15ed91289a6d55aac0c38e37706f7355e9a4fda615b875926bfe5a59d9ef273bf94a07cfa573178f0e004b6e1ef0a8349e9bc"
        "c01981f2460f0a2743c28d1e138ffb765e7e3397b7913335d402fe91806aa8fc819253af32692fa651e867f5907ef46f00625a03"
        "0ec904edab21426d59119d2caa43bd935dec0a550c61ee4b279c1ca3a79c79a66e3f2d2fadb00f59a3a438aa44570106073017fa"
        "1c8757500109720d125bba231a0c36350c78086dfdc8d613aeca88c4ccaeb4a44d13adb3c717d65c82a351b9b6eabf6a10f4b4e9"
        "623e3a95b4d40a12a818ac6b3822db82fb05dc4202648b4454689aeb69ea325f03e35defa54708481420c6d697bb912fca0d3f19"
        "2ef297dfe77ff36b2103f1ad1aeeced1c814c2cd7ef16bce476ad04f941afc79e3295474a41062518c0037860934f0e5e652f727"
        "49a698632a0991f613f5cb96ca1178f974f2c4aa0ce63dc24e364c92a643b90a5f85a62fd4d8d2b193d29b18bede2653fc5d3f24"
        "f5b2c018dbbcb6ef00f305bf93666bd47fea9193bc233db39121442e938da5dd07ee6e879c5b9dff41ecee5e0589ae6175ff5ec6"
        "f6d2629f56b18b4de66fcb13df0400a797c92270f69bdebddcb88c4248919b56cda70b8ac4f9429c292da94d6478280764fe2386"
        "fc38cb0931458839ef4e7de8f0689d99805988c7f96111852c8929e5a540d3b78d712decc396fef3ec34402184e4fd29f363ea80"
        "f6fc50ba9a11351aceea8fe68d541e1aa5848d9f6e61dfb62b2f23bc5081e82f76226e03284982ec48481209b1a7d4c8797e44bf"
        "a870b22004db74bd7d478d5b3614d2b1da7502b398eb9da80d06461e90e03060446ab4a8238432bfaf752f391791214f1e6b6359"
        "0d536060d1c245307bc5c1bac4aaa099d36bb6dcbc973cf2e69f2734d0f29aeec4567b99a16bc17c6cddacefe49927fb14e7d98d"
        "d4263519469cca3db4679a68ceeda955592210fc49aa5fbe934cc73d84e4ba5478002d6890989068ef8fc98c2532b83bf3cb9ef0"
        "2893c2152426b9d1a94734dfb4f91135143c9eed18fd51ae875d07a23775606a734fba98c063b4a1622e7ff21aa7e652a3d6c19f"
        "e0dc6761b7d35302bf214d3079f76051082a875929920dc3b3cb43211a23a43a50332faf1ac2191e717125f63e2586c4d86dca6b"
        "cd3d038f9d3a7b66cbc7df34"
    ),
    signatures=(
        (
            SigningVersion.LATEST,
            bytes.fromhex(
                "5b59b3ae7f741ba97ce16a6c36dc5ca94a2b15369444eeb632967fa34a2130d8e8e9ec4725977cc01c73195de684afa9"
                "cef47fc40bca13ce494d2e6413d0eda9ca2e41edf1ad78aa773356940a2a51d6ee4bd888d13dfc1c9b47b3fc106023a3"
                "7f0955ba6807b3cd2545c884010a13297ac7d8607bd8dca91effc21137b040e1f6106fc93950287799c1f207f7f5233d"
                "d36e9fb3463b49b29e71c1d5b1439bce88f97a952197f03561911e3310d988537fefac0fd1df74ff012e36f553875688"
                "9b2beddf52250a730550893de6d81d46fe900ff3d58571da4ecfe87e3de56c1242b146f6cca48d17788f61ba85e793fe"
                "ac302d637541192a6a3357c164834576ddb0e2fefc49901b5960ee3f5dfec1389b201ae032ea540d943e768efbedb40f"
                "ccc877f30de562435937f49156db369e951f3ac34627e2157ab99460764b814b996c57a50ebabfbc0aac36350b1866c2"
                "d842c78f5d77413fa7047ed44f9e4fd9c62fc58a08b60ae541d2c15017ebe2386e5efc2c8b3fb02527065f46c2c1e59e"
                "48b851ded9d005f3a935a7b3e2b39917c4ceef38af6668a9b90092eac946a9edf3c3a4f1438565ad87d3d328e8afa232"
                "462e8b512d44d4b42ee2ba449562235d730232ed571ebaf6f412925bd312a38636b1f03586f2cd305fea5ba3c80b406d"
                "a86e3034e35d429a0719e2cfa573ab722ee877c7000a9112eaea134517ceb01259ae4fba72ad63cd682af180af35a8b0"
                "d0ddbdca2753b87accc4ac52d3546ca4530e7d592b6d3764fcf807ae37505786a49029ad90c1dfab0c5477538b9c56df"
                "709b16d0c6f255697a03ed25c477bb3e9d7ce384829fc584626f1ce33197018152dcd4b1e4b8dbdb9435e3ea4b335b5f"
                "8c73855f2d26c99aab1ecf122c25abfac00ed55c5fdfda470e33dbaaac29f81966c1ec7584745e30f15ad8cbe902ea79"
                "44c265c075fb6f2c84c4bb831ec1a6ce382c3057b35a4d8e857067e5ad73ed672006e3c6b9d34f6f43226be1fd1e9dcf"
                "576e526a742fe08a7cfaef21a656964b37448ecaee0146d3057c32a913e8bb6a05bf565bb44027b258f8ed5d7777ae0d"
                "61c9097661c746dc061326fee4a7555c77680db0aedc3ae168ff03d8f1eba7a700ff23d4f14eb05bf91af18e322391c7"
                "2ac9deef57deab768fbc3907fc5374e0fb305042cd9a829dab8f44d2945af6119b286c7fa8443ff0c4bcb90592622c28"
                "bb5976f433ff943f1567dfd09c39c5cedfdfc1b76a32442c9cd1b356c372e207b54faa967566b5ce6708a6898c9331bf"
                "ec4a5b35fb0631c13d87dcac12b7cb853678c0298120a0fc2918a2416b9b6ad531c8b483316ddd49f634a932a5bdc50e"
                "bc5074b47f006faec273a9f918738f394ae6702c3ea57a2542c3da97e7e973040f5d6817f78002601730261ff4d2309e"
                "473d69e1a1cedc90a9004f8277ba824dbface26581ea51de39a0adcbb2a3ddce11ffa82cff62918cabcc2fbfd658e4e5"
                "3e4ba1acb6876131b0b3e60844a50de888c4ea69693344936ac9c003d393cbbb404df78bddcbdfa2b3a1cb573b39a596"
                "dc2e243cd5be7be0c9b8e5c86c5d527756a496b7ae6f06a41d2b9c6a9f9229a7c635451907d82b3b8b1a8c52f27c8993"
                "2957dd97de2f69c49c4ddf8e30398d8e0c08d0b8baeb3bb537d741bf4f91d26a249e0208d6ea230259e9d378b4c7a7d8"
                "dcac9707870906831f2eeb520e96f7278fb2630b394075696a106a227d61e7f4417f7c85a26c9a73393597049f07d803"
                "a2eb7bf30d3f40488b1c96eeabf7383eb088a88a928def9d3b829577c375cc8ce8f2649385df4f3fbe61e2c91b12eeb6"
                "efc84fbfb5843089b4faa7673420b55ecdab8844b5593ca219b8195b2529ba099a60240171c2b3800b912513d4aaf4d9"
                "f5a2edfdbb1ff2f483bb3cf5aff4c0e9537ccedd3e2a77ea9f6386c66b45aa375b390018d3325d39070a1832d3b4c2d3"
                "2d24b8c8993e69b09aa4f8d6d6712c36467184c1fd7bc8161310e24c7b695ac20f44d444a879b30fc8160d68b6c40856"
                "d3f4f11e440d1f1f1f09b0c654098d9d3e1672cc5b20b104c4c52e50a769e6364821d7f1f747892815a0ce2ad9669954"
                "76f03a1860a93d16c269add5fa48eeb58fdf4dd0e88b505d046392d61e0b9e316152f091fed67f5e31d682f941f245c6"
                "866a5f0188ed45e4f5c8f5731a1bb3bc391c27de1b6576948c0ab629b31f91c5217f33255e8189b4f51dda08d489dba9"
                "4d75d7ff419eb7a0f16795dce6771305198c205c2148ff5b1ab6b74c42e39f99f3088ffde8d2bcee0e0d125b2af0f3ef"
                "d1ef81073c69695d61cef8ae67e202e29f1aa559281a87f6e2ffb4252e04c109858e1953ec17f0710eac5e490ae4b6c5"
                "eaae3d5d87436354d740d8eda1bf629ab50923f4f3219f4fd4fc1734867c458c73206f8b14916183312d3d2f279df7d4"
                "ccc5563435dec5f3f483c2c415497c7a329e429643b89723f27f654880d0dcb05d1037cdbf87d01b3e6f71df01bdcd38"
                "4b2f205b62b93444e990f3ff0cd7ae9e4d378dbd6b02f75fd68783d649a0cffa8124f2865e74390d9f559650ebe071f9"
                "1d8df41f4abfafa03f768ebb466292647d2751ffa8f3defffa21ad0acc7776ab08f6e6f9c46c6020200aea86eedb9278"
                "2ea6ad54b603a78f4cf05204a684a49064ba986b31341cac0d86d740a293406bad2098c9835b5b467f723ce877f52b35"
                "57e740082b0192f7c7f0e032eecdf3fa35d36be79ac3c0cd229b4309d9aefce5e89627d27ad737c9b56d368740460e66"
                "5eb29df6036636475e50edbec8a0e431ba05dc2acbbba23c8ecb25e0681c5578a1fb4a6af8e1fc4a7de9fb15161b5124"
                "714c600c79d41eaffdd5aa89c198fa07ea1b71976c50d34a279bd21bba54003be976997094b219f732aff2d3a975eacb"
                "931e404bab44de5a203f349f5db8399368922a538eecc1a88699c2f7f84c3f80c2aba4b4d96007ecb54cc36f25d4e0e0"
                "ed349a973ebcfa65a66f9c0977de4191bbd429001295926d7abc283c2bc303b51105f20901008439c0a9ff7bbc4fb00d"
                "489fce96cee02bb9710b8895b455fd11a1865b925eb64adeb55e5717df16c7dfd14c6363525b6a0c7310d27a3c92988a"
                "a6ea75701db12e01167fcb3a357ac400ade2668658d25f29662ab8e1e0c0e9c7f7a9635dd024b1ae44cbf23ecb2b036a"
                "5affa849119e515d06eb21ec6e37ac2f20c21d60a7748ea61f16f7bec09a0c8747832461c5a38c7c2437fc8d13dea356"
                "b80581eed54ecaff75676cf9a5518e7c9e02d8879e9bcf24cfcdbfe625dc0568141d226b6c728386999adde00e23253a"
                "8f999ab4c4cfdc4247496490949edcf1f2f31c2129343a3f43495282878a93a9dfe6ea00000000000000000000000000"
                "000000000000000000000000000000000c172233"
            ),
        ),
    ),
)


class MlDsa44:
    """The curve, so to speak: a lattice."""

    key_type = KeyType.ML_DSA_44
    known_answer = _KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new seed."""
        return PrivateKey(KeyType.ML_DSA_44, secrets.token_bytes(_FACTS.private_key_bytes))

    def open(self, private_key: PrivateKey) -> MlDsa44SigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, or not 32 bytes.
        """
        return MlDsa44SigningKey(private_key_bytes(private_key, KeyType.ML_DSA_44))

    def parse_public_key(self, data: bytes) -> MlDsa44VerifyingKey:
        """Return the key, ready to verify; any bytes of the right size are a key.

        Raises:
            InvalidPublicKey: Not 1312 bytes.
        """
        check_public_key_size(data, KeyType.ML_DSA_44)
        return MlDsa44VerifyingKey(PublicKey(KeyType.ML_DSA_44, data))


def _check_version(version: SigningVersion) -> None:
    if version not in _FACTS.versions:
        raise VersionNotSupported(f"{KeyType.ML_DSA_44} has no signing version {int(version)}: use the latest")


CURVE: Curve = MlDsa44()
