"""Models: likelihood heads, the variational autoencoder, scores, calibration and bundles.

The package knows features, and nothing of sensors or data sets.
"""
