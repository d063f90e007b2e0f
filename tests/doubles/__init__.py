"""Stand-ins for what surrounds the two programs; never part of a package."""
