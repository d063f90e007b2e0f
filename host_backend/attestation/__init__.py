"""Evidence of what an enclave runs: policies, and the verifier that holds a token against one."""
