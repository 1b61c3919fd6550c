"""The compiled meter: NFStream's engine driven by machine code instead of a Python loop."""
