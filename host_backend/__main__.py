"""The command `enclave-host`."""

from host_backend.cli.commands import main

if __name__ == "__main__":
    main()
