"""The half of the signer that runs inside the confidential VM and holds the keys."""

__version__ = "0.2.0.dev0"
