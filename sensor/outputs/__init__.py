"""Outputs: where event lines go. One module each."""
