"""How soon `flowvane run` alerts on a port scan, a flood of SYNs and guessed passwords.

    python -m benchmarks.attacks CAPTURES [--model NAME…] [--only KIND…] [--options OPTION…]

As root, with ip, tcpreplay, nmap, hping3, hydra and sshd. A network namespace of its own has a host
with sshd, on whose interface the sensor captures; a second one, the attacker. The benign captures
below CAPTURES are replayed all the while. Each attack has a sensor of its own, which first sees
nothing but the background for a while. Prints a line of JSON for each: seconds from the start of
the attacking program to the first alert that names the attacked host, or null; and alert events on
the background.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from benchmarks.background import write_background
from benchmarks.daemon import Daemon
from benchmarks.live import OURS, THEIRS, ip, lab

VICTIM, ATTACKER = "10.99.0.1", "10.99.0.2"
_SYNS = ("hping3", "-q", "-n", "-S", "-p", "22")
ATTACKS = {
    "scan": ("nmap", "-n", "-Pn", "-sS", "--top-ports", "1000", VICTIM),
    "flood": (*_SYNS, "-i", "u1000", VICTIM),
    "flood_forged": (*_SYNS, "-i", "u1000", "--rand-source", VICTIM),
    "flood_forged_fast": (*_SYNS, "--flood", "--rand-source", VICTIM),
    "passwords": ("hydra", "-I", "-t", "4", "-l", "root", "-P", "{words}", f"ssh://{VICTIM}"),
}
"""By kind: what the attacker runs. The floods go to an open port: a thousand SYNs a second, each
taken back by the attacker's own RST; the same from forged sources, which never answer; and that as
fast as it can."""
PATIENCE_S = 15.0


@contextmanager
def attacker() -> Iterator[list[str]]:
    """A host of its own behind the cable; gives what comes before a command to run it there."""
    with subprocess.Popen(["unshare", "-n", "sleep", "infinity"]) as holder:
        try:
            here = ["nsenter", "-t", str(holder.pid), "-n"]
            time.sleep(0.5)  # until it has left our namespace
            ip("link", "set", THEIRS, "netns", str(holder.pid))
            for name in (THEIRS, "lo"):
                subprocess.run([*here, "ip", "link", "set", name, "up"], check=True)
            address = ["ip", "addr", "add", f"{ATTACKER}/24", "dev", THEIRS]
            subprocess.run([*here, *address], check=True)
            ip("addr", "add", f"{VICTIM}/24", "dev", OURS)
            # Answers to forged sources go back over the cable, where nobody is.
            ip("route", "add", "default", "via", ATTACKER)
            yield here
        finally:
            holder.kill()


@contextmanager
def sshd(folder: Path) -> Iterator[None]:
    """A real sshd on the victim."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    command = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", str(key), "-o", "PidFile=none",
               "-o", "PasswordAuthentication=yes", "-o", "ListenAddress=" + VICTIM]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.terminate()


def alerts_in(log: Path) -> list[dict[str, Any]]:
    """The whole alerts of a log that is being written."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    events = [orjson.loads(line) for line in lines if line.endswith(b"\n")]
    return [event for event in events if event["event_type"] == "alert"]


def concerns(event: dict[str, Any]) -> bool:
    """Whether an alert is about the attacked host."""
    return VICTIM in (event["src_ip"], event["dest_ip"])


def first_alert_s(log: Path, patience_s: float) -> float | None:
    """Seconds from now until an alert on the attack is in the log."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        if any(map(concerns, alerts_in(log))):
            return round(time.monotonic() - begun, 2)
        time.sleep(0.05)
    return None


def attacked(
    kind: str, here: Sequence[str], folder: Path, options: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    """One attack on one sensor."""
    words = folder / "words"
    words.write_text("".join(f"guess{number}\n" for number in range(1000)), "ascii")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    log = folder / "eve.json"
    player = [*here, "tcpreplay", "-q", "-K", "-i", THEIRS, "--pps", str(args.pps),
              "--loop", "1000", "--unique-ip", str(args.background)]  # fmt: skip
    with Daemon(folder, options) as daemon, subprocess.Popen(player, **quiet) as background:
        time.sleep(args.before)
        before = len(alerts_in(log))
        command = [part.format(words=words) for part in ATTACKS[kind]]
        with subprocess.Popen([*here, *command], **quiet) as attack:
            seconds = first_alert_s(log, PATIENCE_S)
            attack.kill()
        time.sleep(1.0)
        background.kill()
        alerts = alerts_in(log)
        line = daemon.stop()
    first = next(filter(concerns, alerts), None)
    return {
        "attack": kind, "first_alert_s": seconds,
        "kind": first and first["alert"]["signature"], "reason": first and first["flow"]["reason"],
        "background_alerts_before": before,
        "background_alerts": sum(not concerns(event) for event in alerts), "line": line,
    }  # fmt: skip


def main() -> None:
    """Attack, print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", type=Path)
    parser.add_argument("--model", nargs="+", default=["nsl-kdd", "unsw-nb15"])
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--pps", type=int, default=1000, help="of the background")
    parser.add_argument("--before", type=float, default=20.0, help="seconds of background alone")
    parser.add_argument("--budget", type=float, default=20.0, help="alerts an hour; 0: --fpr 0.01")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[],
                        help="the rest is for `flowvane run`")  # fmt: skip
    args = parser.parse_args()
    lab()
    ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory(prefix="flowvane-") as folder, attacker() as here:
        args.background = Path(folder) / "background.pcap"
        captures, packets = write_background(args.background, args.captures)
        print(json.dumps({"captures": captures, "packets": packets}), flush=True)
        with sshd(Path(folder)), suppress(KeyboardInterrupt):
            for model in args.model:
                for kind in args.only:
                    own = Path(folder) / f"{model.replace('/', '_')}-{kind}"
                    own.mkdir()
                    wanted = ["--set", f"alert-budget={args.budget}"] if args.budget else []
                    wanted += ["--model", model, "--set", "grouping.enabled=true", *args.options]
                    found = attacked(kind, here, own, wanted, args)
                    print(json.dumps({"model": model, **found}), flush=True)


if __name__ == "__main__":
    main()
