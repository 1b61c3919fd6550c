"""Flow features: what they are, how they are measured, how they become model inputs.

The package knows nothing of sensors, models or data files. Import the modules by name:
``features.flows`` (the flow record), ``features.schema`` (declarations),
``features.registry`` (the schemas there are) and ``features.encoder``.
"""
