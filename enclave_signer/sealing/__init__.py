"""How a private key leaves the enclave: only as a blob that a sealer made, and that only this image can have opened."""
