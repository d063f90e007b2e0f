"""Both programs on this machine, for a first look: `make run` and `make demo`. Not part of any package."""
