"""`enclave-host serve` that waits long for its enclave and its disk: for programs that run fifty times slower than they do.

`python -m benchmarks.patient_host serve …` is started by `benchmarks.instructions`. Its limits would else end calls that
a program under valgrind has not answered yet.
"""

from host_backend import signer
from host_backend.cli.commands import main
from host_backend.enclave.supervisor import DEFAULT_LIMITS

#: Far longer than anything takes.
LIMIT_S = 600.0
_LIMITS = ("connect_s", "sign_s", "sealer_s", "patience_s", "ready_s", "signature_s", "start_s")


if __name__ == "__main__":
    for name in _LIMITS:
        # One object, which is the default of all that have limits.
        object.__setattr__(DEFAULT_LIMITS, name, LIMIT_S)
    signer.MARK_S = LIMIT_S
    main()
