"""The sensor's counters for Prometheus, read when they are asked for (docs/daemon.md)."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from features.flows import Ending
from sensor.daemon import Stages
from sensor.errors import OutputError
from sensor.outputs.base import Loss, reason
from sensor.pipeline import Scored
from sensor.zeek.columns import Fault
from sensor.zeek.parser import LogCounters

if TYPE_CHECKING:
    from sensor.meter.compiled.live import LiveCounters

_PACKETS_LOST = {
    "kernel_buffer": "kernel_drops", "unread": "unread", "interface": "interface_drops",
    "queue_full": "queue_full_packets", "no_memory": "no_memory", "late": "late_packets",
    "failed": "failed_packets",
}  # fmt: skip
_FLOWS_LOST = {"queue_full": "queue_full_flows", "late": "late_flows"}
"""The counters of :class:`sensor.meter.compiled.live.LiveCounters` by what they are called here."""
_SCORES = (0.0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_P_VALUES = (1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Buckets:
    """How many values there were, by how large they are."""

    def __init__(self, bounds: Iterable[float]) -> None:
        """Count values up to each of `bounds`, which ascend, and those above."""
        self._bounds = np.array(list(bounds), np.float64)
        self._counts = np.zeros(len(self._bounds) + 1, np.int64)
        self._sum = 0.0

    def add(self, values: ArrayLike) -> None:
        """Count ``[B]`` values; one that equals a bound is up to it."""
        values = np.asarray(values, np.float64)
        where = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(where, minlength=len(self._counts))
        self._sum += float(values.sum())

    def family(self, name: str, text: str) -> Metric:
        """The histogram."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        counts = np.cumsum(self._counts).tolist()
        buckets = list(zip(bounds, counts, strict=True))
        return HistogramMetricFamily(name, text, buckets, self._sum)


class Metrics(Collector):
    """What Prometheus is told, made of counters that are kept anyway.

    Beside those, a batch of flows costs :meth:`observe`, a few operations on whole arrays.
    """

    def __init__(self, stages: Stages, reloads: Callable[[], Mapping[str, int]]) -> None:
        """Tell of `stages`; `reloads` gives how many there were, by result."""
        self._stages, self._reloads = stages, reloads
        self._scores, self._p_values = Buckets(_SCORES), Buckets(_P_VALUES)
        self._seconds = Buckets(_SECONDS)
        self._endings = np.zeros(len(Ending), np.int64)

    def observe(self, scored: Scored, seconds: float) -> None:
        """Count a batch of ``[B]`` flows, which took so long to score, decide on and queue."""
        self._scores.add(scored.scores.score)
        self._p_values.add(scored.scores.p_value)
        self._seconds.add([seconds])
        endings = scored.flows["ending"]
        self._endings += np.bincount(endings, minlength=len(self._endings))

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        yield InfoMetricFamily("flowvane", "The program", {"version": version("flowvane")})
        counters = self._stages.meter.counters
        if isinstance(counters, LogCounters):
            yield from _lines(counters)
        else:
            yield from self._packets(cast("LiveCounters", counters))
        yield _counter("packets_metered", "Packets of flows that were scored", counters.metered)
        yield _counter("bytes", "Bytes of flows that have ended",
                       self._stages.statistics.flows.bytes)  # fmt: skip
        yield from self._flows()
        yield from self._alerts()
        yield from self._outputs()
        yield from self._model()
        yield from _process()

    def _packets(self, meter: LiveCounters) -> Iterator[Metric]:
        yield _counter("packets", "Packets that the kernel had for the sensor", meter.received)
        yield _counter("packets_not_ip", "Packets that belong to no flow", meter.not_metered)
        yield _by("packets_lost", "Packets that are in no flow that was scored", "cause", {
            cause: getattr(meter, name) for cause, name in _PACKETS_LOST.items()
        })  # fmt: skip

    def _flows(self) -> Iterator[Metric]:
        meter = self._stages.meter
        yield _by("flows", "Flows scored, by why they ended; early: reports of some that go on",
                  "reason", dict(zip((each.name.lower() for each in Ending),
                                     self._endings.tolist(), strict=True)))  # fmt: skip
        yield _by("flows_lost", "Flows that were not scored", "cause", {
            cause: getattr(meter.counters, name, 0) for cause, name in _FLOWS_LOST.items()
        })  # fmt: skip
        yield GaugeMetricFamily(
            "flowvane_flows_waiting", "Flows that wait to be scored", meter.waiting
        )
        yield _by("forgotten", "Entries that windows of features forgot to make room", "table",
                  dict(self._stages.forgotten))  # fmt: skip
        yield self._scores.family("flowvane_score", "Scores of flows")
        yield self._p_values.family("flowvane_p_value", "p-values of flows")
        yield self._seconds.family(
            "flowvane_batch_seconds",
            "Time to score a batch of flows, decide on it and queue events",
        )

    def _alerts(self) -> Iterator[Metric]:
        feed = self._stages.feed
        counters, groups, suppression = feed.counters, feed.groups, feed.suppression
        yield _counter("alerts", "Flows that are alerts", counters.alerts)
        yield _counter("alert_events", "Events made of them", counters.events)
        yield _counter("alerts_suppressed", "Alerts suppressed by rules", counters.suppressed)
        yield _by("alerts_suppressed_by", "The same by rule", "rule",
                  {} if suppression is None else dict(suppression.counts))  # fmt: skip
        yield _counter("alerts_over_budget", "Alerts beyond the budget", counters.over_budget)
        yield _counter(
            "alerts_repeated", "Alerts on flows whose early report was one", counters.repeated
        )
        yield GaugeMetricFamily(
            "flowvane_alert_threshold", "Largest p-value of an alert", feed.threshold
        )
        yield GaugeMetricFamily(
            "flowvane_alert_groups",
            "Groups of alerts under way",
            0 if groups is None else len(groups),
        )

    def _outputs(self) -> Iterator[Metric]:
        written = CounterMetricFamily(
            "flowvane_events_written", "Events that an output has taken", labels=["output"]
        )
        lost = CounterMetricFamily(
            "flowvane_events_lost", "Events that it has not", labels=["output", "cause"]
        )
        reconnects = CounterMetricFamily(
            "flowvane_output_reconnects", "How often it worked again", labels=["output"]
        )
        waiting = GaugeMetricFamily(
            "flowvane_events_waiting", "Events that wait for it", labels=["output"]
        )
        for number, (name, counters) in enumerate(self._stages.outputs.counters()):
            output = f"{number} {name}"  # names need not differ
            written.add_metric([output], counters.written)
            reconnects.add_metric([output], counters.reconnects)
            waiting.add_metric([output], counters.queued)
            for cause in Loss:
                lost.add_metric([output, cause], counters.dropped[cause])
        yield from (written, lost, reconnects, waiting)

    def _model(self) -> Iterator[Metric]:
        detector = self._stages.scorer.detector
        yield InfoMetricFamily("flowvane_model", "The model in use", {
            "name": detector.name, "kind": detector.kind.name, "schema": detector.schema.name,
            "clock_us": str(detector.clock_us),
            "calibration_flows": str(detector.calibration.count),
        })  # fmt: skip
        yield from self._drift()
        yield _by("reloads", "Reloads, by what became of them", "result", self._reloads())

    def _drift(self) -> Iterator[Metric]:
        feed, drift = self._stages.feed, self._stages.statistics.drift
        recalibration = feed.recalibration
        yield _gauge("recalibration_flows", "Flows of the last day that p-values are corrected by",
                     0 if recalibration is None else recalibration.flows)  # fmt: skip
        if drift is None:
            return
        yield _gauge("drift_flows", "Flows of the last day that were compared", drift.flows)
        features = GaugeMetricFamily(
            "flowvane_feature_drift",
            "Population stability index of a feature: above 0.25 it is another distribution",
            labels=["feature"],
        )
        for name, value in drift.features().items():
            features.add_metric([name], value)
        yield features
        if (scores := drift.scores()) is not None:
            yield _gauge("score_drift", "Kolmogorov-Smirnov statistic of the scores", scores)


def _lines(log: LogCounters) -> Iterator[Metric]:
    yield _counter("log_lines", "Lines with a record in the log that is followed", log.lines)
    yield _by("log_lines_not_read", "Those that were not read", "cause", {
        fault.name.lower(): log.broken[fault] for fault in Fault
    })  # fmt: skip
    yield _gauge("log_bytes_waiting", "Bytes of the log that were not read yet", log.unread_bytes)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"flowvane_{name}", text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"flowvane_{name}", text, value)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter for each value of a label."""
    family = CounterMetricFamily(f"flowvane_{name}", text, labels=[label])
    for which, value in values.items():
        family.add_metric([which], value)
    return family


def _process() -> Iterator[Metric]:
    """What the process uses; prometheus_client's own needs a /proc/stat, which systemd may hide."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    yield _gauge("resident_bytes", "Resident memory", pages * _PAGE)
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    yield _gauge("open_files", "Open file descriptors", files)
    yield _counter("cpu_seconds", "Processor time, of all threads", time.process_time())


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Quiet)
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        """Bind, without asking DNS for a name as http.server does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # a reader that says nothing holds its thread no longer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's)
        """Nothing: a request is no news."""


@contextmanager
def served(metrics: Collector, listen: str) -> Iterator[str]:
    """Serve metrics over HTTP while the context lasts, at any path; its value is the address.

    Args:
        metrics: what is served.
        listen: address and port, as 127.0.0.1:9469 or [::1]:9469; port 0 for any.

    Raises:
        OutputError: it cannot be listened there.
    """
    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server = _Server(host.strip("[]"), int(port), registry)
    except (OSError, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else "there is no such port"
        raise OutputError(f"metrics: cannot listen on {listen}: {why}") from error
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
    )
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
