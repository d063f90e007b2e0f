"""A wheel in which the modules that are asked most are compiled; plain Python stays the source, and what is shipped."""
