"""The half of the signer that runs outside: keeps sealed keys, decides what may be signed, answers clients."""
