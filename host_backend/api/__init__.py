"""HTTP: knows the signer; nothing knows HTTP."""
