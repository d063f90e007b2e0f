"""The command `enclave-host`."""

import signal
import sys

# Before the other imports take their time: a SIGHUP must not end a `serve` that is still starting.
# All other commands end with their terminal.
if "serve" in sys.argv[1:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

# Until a command runs, which says that it was interrupted, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from host_backend.cli.commands import main

if __name__ == "__main__":
    main()
