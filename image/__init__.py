"""Makes the image of `enclave-signer`. Nothing of it is packaged; each module runs with the standard library and pip alone."""
