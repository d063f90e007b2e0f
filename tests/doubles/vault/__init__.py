"""What tests of the sealer `vault_transit` need: a real OpenBao server."""
