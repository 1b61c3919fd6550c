"""Data sets, fitting and evaluation: everything that ends in a model bundle."""
