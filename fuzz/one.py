"""Fuzzes one target in this process, by libFuzzer's options; or runs one input again, without atheris.

usage: python -m fuzz.one TARGET FILE
       python -m fuzz.one TARGET FOLDER... [-LIBFUZZER_OPTION=VALUE...]
"""

import sys
from pathlib import Path

#: Seconds for one input: all of them take milliseconds.
HANG_S = 10
#: Whose branches guide the search: our code, the second readings, and the libraries in Python that read the same bytes.
_WATCHED = [
    "enclave_signer",
    "host_backend",
    "tests.doubles.strict_cbor",
    "tests.doubles.operation_decoder",
    "yaml",
    "jwt",
    "h11",
]


def main(target: str, arguments: list[str]) -> None:
    """Fuzz, or run one input."""
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        from fuzz.targets import TARGETS, finish

        TARGETS[target](Path(arguments[0]).read_bytes())
        finish()
        return
    import atheris

    with atheris.instrument_imports(include=_WATCHED):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
