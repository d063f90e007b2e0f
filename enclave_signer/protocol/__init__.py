"""The wire between host and enclave: frames, messages, codec. Imports the standard library and cbor2 only."""
