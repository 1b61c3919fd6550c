"""Zeek's conn.log as a source of flows: read as a file, or followed while Zeek writes it."""
