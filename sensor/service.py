"""`flowvane run` from its configuration: what is opened, in which order, and closed."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sensor import coldstart, daemon
from sensor.allocator import one_heap
from sensor.aside import aside
from sensor.caches import keep_compiled
from sensor.coldstart import Learning
from sensor.config.build import deciders_of, medium_of, outputs_of
from sensor.config.keys import Config
from sensor.daemon import RunSummary, Stages
from sensor.destinations import open_destinations, told
from sensor.drift import Drift
from sensor.errors import ExitCode, OutputError
from sensor.feed import AlertFeed, Deciders
from sensor.lifecycle import Lifecycle
from sensor.live import warm_up
from sensor.medium import check_medium
from sensor.model import open_model
from sensor.notify import Notifier
from sensor.outputs.queued import CLOSE_WITHIN_S
from sensor.pipeline import Scored, Scorer
from sensor.reload import Reloader
from sensor.report import Console
from sensor.signals import Requests
from sensor.sources import source_of
from sensor.stats import Statistics
from sensor.triage import tell_forgotten

if TYPE_CHECKING:
    from models.detector import Detector

_CLOSING_S = 1.0
"""Outputs are closed by so long after `stop-within`: 4.5 s after the signal, unless told."""
_CLOSING_LEAST_S = 0.2


def serve(config: Config, reread: Callable[[], Config], console: Console) -> ExitCode:
    """Learn a model first where that is wanted and there is none; then :func:`capture`.

    Raises:
        LearningFailed: no model was learnt, and none was there to go on with.
        KeyboardInterrupt, FlowvaneError: as :func:`capture`.
    """
    if not coldstart.needed(config):
        return capture(config, reread, console)
    coldstart.check_start(config)
    source_of(config).check()
    learning, between = Learning(config, console), coldstart.meanwhile_of(config)
    learning.begin()
    try:
        console.say(f"no model in {config.model} yet: learning it; "
                    f"{'no alerts' if between is None else f'alerts by {between.model}'} until "
                    "then")  # fmt: skip
        if between is None:
            if not coldstart.wait(learning, Notifier(os.environ, console.warn), console):
                return ExitCode.OK
        else:
            requests, model = Requests(), {"model": between.model}
            code = capture(between, lambda: reread().model_copy(update=model), console,
                           requests, learning)  # fmt: skip
            if requests.stopped_at is not None or not learning.poll():
                return code
    finally:
        learning.end()
    return capture(config, reread, console)


def capture(
    config: Config, reread: Callable[[], Config], console: Console,
    requests: Requests | None = None, learning: Learning | None = None,
) -> ExitCode:  # fmt: skip
    """Capture, or follow a log, as a configuration says, until a signal.

    Args:
        config: what holds.
        reread: gives what would hold if the sensor were started now, for a reload.
        console: is told.
        requests: takes note of signals.
        learning: ends the capture, too, once its model is there.

    Raises:
        KeyboardInterrupt: a signal came before the capture began.
        InputError: an interface cannot be captured, or metering failed; all that could be was
            scored and told then.
        FlowvaneError: something else that is configured cannot be used.
    """
    source = source_of(config)
    source.check()
    requests = requests or Requests()
    with requests.noted(), ExitStack() as opened:
        one_heap()
        keep_compiled()
        detector, deciders = aside(lambda: _deciding(config))
        gc.freeze()  # what is loaded by now stays; looking through it would stop every thread
        outputs = open_destinations(
            outputs_of(config), Path(config.default_log_dir), detector.name, source.places
        )
        opened.callback(lambda: outputs.close(_time_to_close(requests, config)))
        meter = opened.enter_context(closing(aside(lambda: source.open(detector, console))))
        requests.stop = meter.stop
        feed = AlertFeed(**deciders._asdict(), clock=daemon.monotonic_us)
        statistics = Statistics(meter.counters, feed, outputs.total, Drift(detector))
        forgotten: Counter[str] = Counter()
        stages = Stages(meter, Scorer(detector, forgotten), feed, outputs, statistics, forgotten)
        console.say(f"{source.told}; model {detector.name}; "
                    f"events to {', '.join(outputs.names) or 'nowhere'}")  # fmt: skip
        reloader = Reloader(config, reread, stages, console, requests)
        notifier = Notifier(os.environ, console.warn)
        lifecycle = Lifecycle(
            stages, requests, reloader, notifier,
            beside=str if learning is None else lambda: f"; {learning.status}",
        )  # fmt: skip
        turns = [lifecycle.turn]
        if learning is not None:
            turns.append(coldstart.changeover(learning, meter.stop, console))
        observe = opened.enter_context(_metrics(config, stages, reloader, console))
        summary = daemon.run(stages, console, turns, observe)
        outputs.close(_time_to_close(requests, config))
        _tell_all(summary, stages, console)
        if meter.failure is not None:
            raise meter.failure
    return ExitCode.OK


def _deciding(config: Config) -> tuple[Detector, Deciders]:
    """The model and what decides on alerts, compiled.

    Raises:
        FlowvaneError: the model or a file of rules cannot be used.
    """
    detector = open_model(config.model)
    check_medium(detector.name, detector.schema, medium_of(config))
    deciders = deciders_of(config, detector)
    warm_up(detector)
    return detector, deciders


@contextmanager
def _metrics(
    config: Config, stages: Stages, reloader: Reloader, console: Console
) -> Iterator[Callable[[Scored, float], None] | None]:
    """Serve metrics, if that is wanted; gives what is to be told of each batch.

    Raises:
        OutputError: the prometheus_client package is not installed, or it cannot be listened.
    """
    if not config.metrics.enabled:
        yield None
        return
    try:
        from sensor.metrics import Metrics, served
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise OutputError(
            "metrics need the prometheus_client package: pip install 'flowvane[metrics]'"
        ) from error
    metrics = Metrics(stages, reloader.results)
    with served(metrics, config.metrics.listen) as address:
        console.say(f"metrics on http://{address}/metrics")
        yield metrics.observe


def _time_to_close(requests: Requests, config: Config) -> float:
    """Seconds that outputs have to deliver what waits, within what a stop may take in all."""
    if requests.stopped_at is None:
        return CLOSE_WITHIN_S
    end = requests.stopped_at + config.stop_within + _CLOSING_S
    return min(CLOSE_WITHIN_S, max(end - time.monotonic(), _CLOSING_LEAST_S))


def _tell_all(summary: RunSummary, stages: Stages, console: Console) -> None:
    """Tell what the run did, once the outputs are closed."""
    tell_forgotten(stages.forgotten, console)
    for line in stages.outputs.notices():
        console.warn(line)
    each = stages.outputs.counters()
    if len(each) > 1:
        for name, counters in each:
            console.say(f"{name}: {told(counters)}")
    summary.events = stages.outputs.total()
    console.say(summary.line)
