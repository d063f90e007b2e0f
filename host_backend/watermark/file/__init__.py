"""Marks in a file of the host's folder: its bytes, how it is opened, written, made anew, and looked after."""
