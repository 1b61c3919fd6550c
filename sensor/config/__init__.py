"""The configuration of `flowvane run`: declared in keys, read, checked, written and described.

Only :mod:`sensor.config.defaults` is for commands that need no configuration: the others load
pydantic or PyYAML, which takes time.
"""
