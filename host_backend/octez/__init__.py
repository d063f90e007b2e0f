"""Octez' own signer protocol, over TCP and Unix sockets, into the same signer as HTTP; and what octez-signer leaves behind."""
