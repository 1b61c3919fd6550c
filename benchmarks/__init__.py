"""Benchmarks: compare in one run, in turns, and print ratios."""
