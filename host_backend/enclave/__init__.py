"""The link to the enclave: one stream, answers matched to calls in order."""
