"""The sensor: captures in, EVE events out, and the command line."""
