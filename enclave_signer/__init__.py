"""The half of the signer that runs inside the confidential VM and holds the keys."""

__version__ = "0.1.0"
