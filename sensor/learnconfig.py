"""`flowvane learn -c`: captures as the sensor will that the model is for."""

from __future__ import annotations

import argparse
from pathlib import Path

from sensor.config.check import check
from sensor.config.command import taps
from sensor.config.source import read_file
from sensor.durations import seconds_of
from sensor.errors import UsageError
from sensor.livefeatures import Capture
from sensor.meter.compiled.core import Options


def capture_by(args: argparse.Namespace) -> Capture:
    """The capture that a configuration of `flowvane run` describes.

    Sets the options of `args` that were not given: what is written, which rate of false positives
    the model has to keep, and the clock that the meter has.

    Raises:
        ConfigError: something is wrong with the configuration.
        UsageError: it names no interface, or no folder for the model.
    """
    config = check(read_file(args.config))
    if not config.interfaces:
        raise UsageError(f"{args.config}: interfaces: names none to learn from")
    if args.output is None and args.update is None:
        if "/" not in config.model:
            raise UsageError(f"-o: say where to; {args.config}: model: {config.model} is no path")
        args.output = Path(config.model)
    if args.fpr is None:
        args.fpr = config.rate
    args.meter = config.meter
    if config.meter == "stock" and args.clock is None and args.update is None:
        args.clock = "ms"  # it has no finer one, and the sensor will have none
    lasting_s, flows = args.lasting, args.flows
    if lasting_s is None and flows is None:
        lasting_s, flows = seconds_of(config.learn.lasting), config.learn.flows
    options = Options(most_flows=config.most_flows, linger_s=config.linger)
    return Capture(taps(config), options, lasting_s, flows)
