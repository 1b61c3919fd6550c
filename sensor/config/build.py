"""What the values of a configuration become: outputs, and what decides on alerts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from features.schema import Medium
from sensor.budget import AlertBudget
from sensor.config.keys import Config, EveLog, Stats, StatsSettings
from sensor.destinations import Wanted
from sensor.eve import Style
from sensor.feed import Deciders
from sensor.grouping import Groups, Schedule
from sensor.outputs.spec import (
    FileType,
    OutputSpec,
    Pipelining,
    RedisMode,
    RedisSpec,
    SyslogSpec,
)  # fmt: skip
from sensor.recalibration import Recalibration
from sensor.suppress import Suppression
from sensor.verdict import Verdict

if TYPE_CHECKING:
    from models.detector import Detector


def medium_of(config: Config) -> Medium:
    """What flows are measured from."""
    return Medium.PACKETS if config.zeek_conn.filename is None else Medium.ZEEK_CONN


def outputs_of(config: Config) -> list[Wanted]:
    """The outputs that are enabled."""
    wanted = []
    for output in config.outputs:
        eve_log = output.eve_log
        if not eve_log.enabled:
            continue
        intervals = [
            (each.stats if isinstance(each, Stats) else StatsSettings()).interval
            for each in eve_log.types if isinstance(each, Stats) or each == "stats"
        ]  # fmt: skip
        wanted.append(
            Wanted(
                spec_of(eve_log),
                frozenset(each for each in eve_log.types if isinstance(each, str)) - {"stats"},
                Style(config.eve_version, config.sensor_name, eve_log.community_id),
                float(intervals[0]) if intervals else None,
            )
        )
    return wanted


def spec_of(eve_log: EveLog) -> OutputSpec:
    """Where the events of an output go."""
    redis, syslog, pipelining = eve_log.redis, eve_log.syslog, eve_log.redis.pipelining
    return OutputSpec(
        filetype=FileType(eve_log.filetype),
        filename=eve_log.filename,
        filemode=int(str(eve_log.filemode), 8),
        rotate_interval=eve_log.rotate_interval,
        rotate_size=eve_log.rotate_size,
        rotate_count=eve_log.rotate_count,
        identity=eve_log.identity,
        facility=eve_log.facility,
        level=eve_log.level,
        syslog=SyslogSpec(
            socket=syslog.socket, server=syslog.server, port=syslog.port, max_line=syslog.max_line
        ),
        redis=RedisSpec(
            server=redis.server, port=redis.port, username=redis.username,
            password=redis.password, mode=RedisMode(redis.mode), key=redis.key,
            stream_maxlen=redis.stream_maxlen, stream_trim_exact=redis.stream_trim_exact,
            pipelining=Pipelining(enabled=pipelining.enabled, batch_size=pipelining.batch_size),
        ),
        queue_size=eve_log.queue_size,
        retry_max=eve_log.retry_max,
    )  # fmt: skip


def suppression_of(config: Config) -> Suppression | None:
    """The suppression rules, read.

    Raises:
        UsageError: the file cannot be read, or is wrong.
    """
    return None if config.suppress is None else Suppression(Path(config.suppress))


def groups_of(config: Config) -> Groups | None:
    """What makes one alert of a burst, if that is wanted."""
    own = config.grouping
    if not own.enabled:
        return None
    return Groups(
        Schedule(first_s=own.first_update, most_s=own.longest_interval, quiet_s=own.quiet)
    )


def deciders_of(config: Config, detector: Detector) -> Deciders:
    """What decides which flows are alerts.

    Raises:
        UsageError: the model cannot keep the rate, or the suppression rules are wrong.
    """
    verdict = Verdict(detector, config.rate)
    budget = None
    if config.alert_budget is not None:
        budget = AlertBudget(config.alert_budget, detector.calibration.least_p, config.rate)
    recalibration = Recalibration(detector.calibration) if config.recalibrate else None
    return Deciders(verdict, suppression_of(config), budget, groups_of(config), recalibration)
