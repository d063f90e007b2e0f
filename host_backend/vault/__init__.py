"""Vaults: one enclave each, and the sealed keys that belong to it."""
