"""Environment variables that change what Google's libraries do, and that must not be set beside this daemon.

The person who starts the machine can choose some of the environment. These variables would make the libraries log keys
in clear, use other servers or a proxy, trust other authorities, or look up settings elsewhere.
"""

from collections.abc import Mapping

from enclave_signer.errors import ConfigError

#: In any case of letters; proxies are read in both.
_PREFIXES = ("GOOGLE_", "GRPC_", "GCE_METADATA_", "OTEL_")
_NAMES = {
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "OPENSSL_CONF",
    "REQUESTS_CA_BUNDLE",
    "RES_OPTIONS",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "SSLKEYLOGFILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
}


def check_environment(environment: Mapping[str, str]) -> None:
    """Do nothing if no such variable is set.

    Raises:
        ConfigError: One is; the text names it, not its value.
    """
    for name in sorted(environment):
        known = name.upper()
        if known in _NAMES or known.startswith(_PREFIXES):
            raise ConfigError(
                f"{name} is set: it may log keys in clear, or lead to other servers; remove it from the environment"
            )
