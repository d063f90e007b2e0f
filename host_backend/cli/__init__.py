"""The command line: words only. Every command imports late, so that `--help` answers at once."""
