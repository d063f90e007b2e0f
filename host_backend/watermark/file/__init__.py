"""Marks in a file of the host's folder: its bytes, how it is opened, written, rebuilt, and managed."""
