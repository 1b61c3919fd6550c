"""KDD: the 41 features of the KDD Cup 1999 data, shared by NSL-KDD.

Definitions: the task description of KDD Cup 1999 (`kddcup.names`, tables 1 to 3) after Lee
and Stolfo, "A framework for constructing features and models for intrusion detection
systems", ACM TISSEC 3(4), 2000. `flag` is Bro's connection state. What the definitions leave
open is read from the published rows (tests/features/test_kdd_evidence.py).

All 41 are live. `wrong_fragment` is counted by Bro's rules
(:mod:`sensor.meter.compiled.fragments`), which give a teardrop 3 and a ping of death 1, as the
published rows have it; stock NFStreamer hands on first fragments only, so there it is 0.

Known to differ on the wire (docs/decisions/0005-what-differs-on-the-wire.md): a record of ICMP in
KDD is one packet (no row has a duration or bytes of the destination), here it is an exchange; KDD
looks back from a connection's start, a sensor from its end; the login of an FTP session is not
known to its data connections, whose `logged_in` KDD has at 1 in three of four.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch, TcpState, address_keys
from features.schema import Feature, FloatArray, FlowView, Kind, Measure, MeterSettings, Schema
from features.windows import KddWindows, mix_keys

SOURCE = "kddcup.names"

PROTOCOLS: tuple[str, ...] = ("tcp", "udp", "icmp")
FLAGS: tuple[str, ...] = (
    "OTH", "REJ", "RSTO", "RSTOS0", "RSTR", "S0", "S1", "S2", "S3", "SF", "SH",
)  # fmt: skip
_FLAG = {name: float(code) for code, name in enumerate(FLAGS)}

# Recovered: in the rows with count = 1, serror_rate is 1 for just these, rerror_rate for those.
SYN_ERRORS = ("S0", "S1", "S2", "S3", "SH")
REJ_ERRORS = ("REJ", "RSTO", "RSTOS0", "RSTR")

_IS_SYN_ERROR = np.isin(FLAGS, SYN_ERRORS)
_IS_REJ_ERROR = np.isin(FLAGS, REJ_ERRORS)

SERVICES: tuple[str, ...] = tuple(
    (
        "IRC X11 Z39_50 aol auth bgp courier csnet_ns ctf daytime discard domain domain_u echo "
        "eco_i ecr_i efs exec finger ftp ftp_data gopher harvest hostnames http http_2784 http_443 "
        "http_8001 icmp imap4 iso_tsap klogin kshell ldap link login mtp name netbios_dgm "
        "netbios_ns netbios_ssn netstat nnsp nntp ntp_u other pm_dump pop_2 pop_3 printer private "
        "red_i remote_job rje shell smtp sql_net ssh sunrpc supdup systat telnet tftp_u tim_i time "
        "urh_i urp_i uucp uucp_path vmnet whois"
    ).split()
)
_SERVICE = {name: float(code) for code, name in enumerate(SERVICES)}

# Bro names a service by its responder's well-known port.
_TCP_SERVICE = {
    7: "echo", 9: "discard", 11: "systat", 13: "daytime", 15: "netstat", 20: "ftp_data", 21: "ftp",
    22: "ssh", 23: "telnet", 25: "smtp", 37: "time", 42: "name", 43: "whois", 53: "domain",
    57: "mtp", 70: "gopher", 71: "remote_job", 77: "rje", 79: "finger", 80: "http", 84: "ctf",
    87: "link", 95: "supdup", 101: "hostnames", 102: "iso_tsap", 105: "csnet_ns", 109: "pop_2",
    110: "pop_3", 111: "sunrpc", 113: "auth", 117: "uucp_path", 119: "nntp", 137: "netbios_ns",
    138: "netbios_dgm", 139: "netbios_ssn", 143: "imap4", 150: "sql_net", 175: "vmnet", 179: "bgp",
    194: "IRC", 210: "Z39_50", 389: "ldap", 433: "nnsp", 443: "http_443", 512: "exec", 513: "login",
    514: "shell", 515: "printer", 520: "efs", 530: "courier", 540: "uucp", 543: "klogin",
    544: "kshell", 2784: "http_2784", 5190: "aol", 6667: "IRC", 8001: "http_8001",
    **dict.fromkeys(range(6000, 6064), "X11"),
}  # fmt: skip
_UDP_SERVICE = {53: "domain_u", 69: "tftp_u", 111: "sunrpc", 123: "ntp_u", 137: "netbios_ns",
                138: "netbios_dgm"}  # fmt: skip
_ICMP_SERVICE = {0: "ecr_i", 3: "urp_i", 5: "red_i", 8: "eco_i", 11: "tim_i"}
_ICMP6_SERVICE = {1: "urp_i", 3: "tim_i", 128: "eco_i", 129: "ecr_i", 137: "red_i"}

_PRIVILEGED = 1024
_FTP_DATA_PORT = 20
_ICMP_HEADER = 8
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58


def _port_table(named: dict[int, str]) -> FloatArray:
    """Service code of every port: Bro's `priv-N` (KDD: private) below 1024, else `other-N`."""
    table = np.full(65536, _SERVICE["other"])
    table[:_PRIVILEGED] = _SERVICE["private"]
    for port, name in named.items():
        table[port] = _SERVICE[name]
    return table


def _type_table(named: dict[int, str]) -> FloatArray:
    table = np.full(256, _SERVICE["icmp"])
    for number, name in named.items():
        table[number] = _SERVICE[name]
    return table


_TCP_TABLE, _UDP_TABLE = _port_table(_TCP_SERVICE), _port_table(_UDP_SERVICE)
_ICMP_TABLE, _ICMP6_TABLE = _type_table(_ICMP_SERVICE), _type_table(_ICMP6_SERVICE)


def protocol_codes(flows: FlowBatch) -> FloatArray:
    """Code in PROTOCOLS of each flow, ``[B]``; -1 for what KDD has no name for."""
    protocol = flows["protocol"]
    return np.select(
        [protocol == _TCP, protocol == _UDP, (protocol == _ICMP) | (protocol == _ICMP6)],
        [0.0, 1.0, 2.0],
        -1.0,
    )


def service_codes(flows: FlowBatch) -> FloatArray:
    """Code in SERVICES of each flow, ``[B]``, by destination port or ICMP type.

    FTP's data, which the server of an active transfer opens, is known by its source port.
    """
    protocol = flows["protocol"]
    from_ftp = (flows["src_port"] == _FTP_DATA_PORT) & (flows["dst_port"] >= _PRIVILEGED)
    code = np.select(
        [protocol == _TCP, protocol == _UDP, protocol == _ICMP, protocol == _ICMP6],
        [
            np.where(from_ftp, _SERVICE["ftp_data"], _TCP_TABLE[flows["dst_port"]]),
            _UDP_TABLE[flows["dst_port"]],
            _ICMP_TABLE[flows["icmp_type"]],
            _ICMP6_TABLE[flows["icmp_type"]],
        ],
        _SERVICE["other"],
    )
    host = (protocol == _ICMP) & (flows["icmp_type"] == 3) & (flows["icmp_code"] == 1)
    return np.where(host, _SERVICE["urh_i"], code)


def _connection_state(src: TcpState, dst: TcpState, silent: bool) -> str:
    """Zeek's ``conn_state`` of a TCP connection; `silent`: no payload either way.

    Its two states that KDD has no name for, RSTRH and SHR (a SYN-ACK seen and no SYN), are OTH.
    """
    state = TcpState
    unseen = (state.INACTIVE, state.PARTIAL)
    if dst is state.RESET:
        if src in (state.SYN_SENT, state.SYN_ACK_SENT) or (src is state.RESET and silent):
            return "REJ"
        return "OTH" if src in unseen else "RSTR"
    if src is state.RESET:
        return "RSTOS0" if dst in unseen else "RSTO"
    if src is state.CLOSED:
        if dst is state.CLOSED:
            return "SF"
        return "SH" if dst in unseen else "S2"
    if dst is state.CLOSED:
        return "OTH" if src in unseen else "S3"
    if (src, dst) == (state.SYN_SENT, state.INACTIVE):
        return "S0"
    return "S1" if (src, dst) == (state.ESTABLISHED, state.ESTABLISHED) else "OTH"


_STATE_CODES = np.array(
    [
        [
            [_FLAG[_connection_state(src, dst, silent)] for silent in (False, True)]
            for dst in TcpState
        ]
        for src in TcpState
    ]
)


def flag_codes(flows: FlowBatch) -> FloatArray:
    """Code in FLAGS of each flow, ``[B]``: Bro's connection state; SF for UDP and ICMP, as KDD."""
    silent = (flows["src_payload_bytes"] == 0) & (flows["dst_payload_bytes"] == 0)
    states = _STATE_CODES[flows["src_tcp_state"], flows["dst_tcp_state"], silent.astype(np.intp)]
    return np.where(flows["protocol"] == _TCP, states, _FLAG["SF"])


def payload_bytes(flows: FlowBatch, side: str) -> FloatArray:
    """Payload bytes that a side, "src" or "dst", sent, ``[B]``; ICMP's headers count as payload.

    So they do in KDD: an echo request without data has 8 bytes, a smurf's of 1,024 has 1,032.
    """
    icmp = np.isin(flows["protocol"], (_ICMP, _ICMP6))
    headers = np.where(icmp, _ICMP_HEADER * flows[f"{side}_packets"].astype(np.float64), 0.0)
    total: FloatArray = flows[f"{side}_payload_bytes"] + headers
    return total


def duration_s(dur_s: FloatArray, active_timeout_s: float) -> FloatArray:
    """Whole seconds, as published; the meter cuts longer connections at the active timeout."""
    return np.minimum(np.floor(dur_s), active_timeout_s)


def _land(view: FlowView) -> NDArray[np.bool_]:
    flows = view.flows
    same: NDArray[np.bool_] = (flows["src_ip"] == flows["dst_ip"]).all(axis=1) & (
        flows["src_port"] == flows["dst_port"]
    )
    return same


def _window(name: str) -> Measure:
    return lambda view: view.windows[name]


_METER = MeterSettings(idle_timeout_s=120, active_timeout_s=1800)


def _columns() -> tuple[Feature, ...]:
    def of(
        name: str, kind: Kind, unit: str, meaning: str, measure: Measure | None, **more: object
    ) -> Feature:
        return Feature(name, kind, unit, meaning, SOURCE, measure, **more)  # type: ignore[arg-type]

    def content(name: str, field: str, kind: Kind, unit: str, meaning: str) -> Feature:
        return of(name, kind, unit, meaning, lambda view: view.flows[field])

    def traffic(name: str, kind: Kind, unit: str, meaning: str) -> Feature:
        return of(name, kind, unit, meaning, _window(name))

    count, rate, binary = Kind.COUNT, Kind.RATE, Kind.BINARY
    category = Kind.CATEGORICAL
    return (
        of("duration", count, "s", "length of the connection in whole seconds",
           lambda view: duration_s(view.dur_s, _METER.active_timeout_s)),
        of("protocol_type", category, "name", "transport protocol",
           lambda view: protocol_codes(view.flows), vocabulary=PROTOCOLS),
        of("service", category, "name", "network service of the destination",
           lambda view: service_codes(view.flows), vocabulary=SERVICES),
        of("flag", category, "name",
           "Bro's state of the connection, by Zeek's rules; RSTRH and SHR are OTH; UDP and ICMP SF",
           lambda view: flag_codes(view.flows), vocabulary=FLAGS),
        of("src_bytes", count, "bytes",
           "payload bytes from source to destination; of ICMP with the header's 8 of each packet",
           lambda view: payload_bytes(view.flows, "src")),
        of("dst_bytes", count, "bytes",
           "payload bytes from destination to source; of ICMP with the header's 8 of each packet",
           lambda view: payload_bytes(view.flows, "dst")),
        of("land", binary, "1", "1 if both sides have the same address and port", _land),
        of("wrong_fragment", count, "fragments",
           "what Bro finds wrong with IPv4 fragments: too small, overlapping, ending beyond the "
           "last one, too large", lambda view: view.flows["wrong_fragments"]),
        of("urgent", count, "packets", "urgent packets", lambda view: view.total("urgent")),
        # The text of telnet (port 23), rlogin (513), ftp (21), pop3 (110), imap (143), smtp (25)
        # and http (80, 8001), as far as it is plain; 0 for the encrypted and for all others.
        content("hot", "hot", count, "indicators",
                "hot indicators in plain text, 0 if encrypted. ftp: STOR, STOU, APPE, SITE EXEC, "
                "and a guest's RETR. http: a request for /etc/, /bin/, /dev/, ../.. or eight "
                "slashes; one that passes a command to a program; a reply 404. telnet, rlogin: a "
                "line of the source, or of the destination, with an intruder's telltale text. A "
                "login by a hot id"),
        content("num_failed_logins", "failed_logins", count, "logins",
                "refused logins in plain text, 0 if encrypted. ftp: 530 to PASS. imap: NO or BAD "
                "to LOGIN. telnet, rlogin: after the password a line such as `Login incorrect`, or "
                "another login prompt. pop3: none, as published"),
        content("logged_in", "logged_in", binary, "1",
                "1 if logged in, in plain text, 0 if encrypted. ftp: reply 230. imap: OK to LOGIN. "
                "telnet, rlogin: after the password `Last login`, a prompt, or more typing without "
                "a refusal. As published, http: a request was sent; smtp, pop3: the server spoke"),
        content("num_compromised", "compromised", count, "conditions",
                "lines of the destination with `not found`, `no such file` or `jump to`, in plain "
                "text, 0 if encrypted: telnet and rlogin after the login, ftp replies 550, http "
                "replies 404"),
        content("root_shell", "root_shell", binary, "1",
                "1 if telnet or rlogin showed, after the login, a prompt that ends in # or "
                "`uid=0(root)`; 0 if encrypted"),
        content("su_attempted", "su_attempted", count, "1",
                "1 if `su` to root was typed in telnet or rlogin, 2 if a root prompt followed, as "
                "published; 0 if encrypted"),
        content("num_root", "root_accesses", count, "accesses",
                "lines that name root, in plain text, 0 if encrypted: from the destination of "
                "telnet and rlogin after the login, and either way in ftp's data (directory "
                "lists), as published"),
        content("num_file_creations", "file_creations", count, "operations",
                "commands that make files, in plain text, 0 if encrypted. telnet, rlogin: touch, "
                "cp, mkdir, ln, tee, uudecode, cc, gcc, editors, > to a file. ftp: STOR, STOU, "
                "APPE, but not a guest's, as published"),
        content("num_shells", "shells", count, "commands",
                "commands in telnet and rlogin that start a shell (sh, bash, csh, ksh, tcsh, zsh); "
                "0 if encrypted"),
        content("num_access_files", "access_files", count, "operations",
                "commands, requests and transfers that name an access control file (/etc/passwd, "
                "shadow, group, hosts.equiv, .rhosts, .netrc, .htaccess and the like) in telnet, "
                "rlogin, ftp, smtp commands and http request lines; 0 if encrypted"),
        of("num_outbound_cmds", count, "commands",
           "outbound commands in an ftp session: 0, as in every published row",
           lambda view: np.zeros(len(view.flows))),
        content("is_host_login", "host_login", binary, "1",
                "1 if a user name of the hot list (root, system, operator, ...) logged in, or one "
                "that is never innocent (rewt, r00t, lp, sync, ...) tried to, in telnet, rlogin, "
                "ftp or imap; 0 if encrypted"),
        content("is_guest_login", "guest_login", binary, "1",
                "1 if the user name given is anonymous, ftp, guest or visitor, let in or not, as "
                "published, in telnet, rlogin, ftp, imap or pop3; 0 if encrypted"),
        traffic("count", count, "connections", "to the same host in the past 2 s"),
        traffic("srv_count", count, "connections", "to the same service in the past 2 s"),
        traffic("serror_rate", rate, "1", "SYN errors among the count"),
        traffic("srv_serror_rate", rate, "1", "SYN errors among the srv_count"),
        traffic("rerror_rate", rate, "1", "REJ errors among the count"),
        traffic("srv_rerror_rate", rate, "1", "REJ errors among the srv_count"),
        traffic("same_srv_rate", rate, "1", "same service among the count"),
        traffic("diff_srv_rate", rate, "1", "different services among the count, 0 if one"),
        traffic("srv_diff_host_rate", rate, "1", "different hosts among the srv_count, 0 if one"),
        traffic("dst_host_count", count, "connections", "to the same host of the last 255"),
        traffic("dst_host_srv_count", count, "connections", "to the same service of the last 255"),
        traffic("dst_host_same_srv_rate", rate, "1", "same service among the dst_host_count"),
        traffic("dst_host_diff_srv_rate", rate, "1",
                "different services among the dst_host_count, 0 if one"),
        traffic("dst_host_same_src_port_rate", rate, "1",
                "same source port among the dst_host_count"),
        traffic("dst_host_srv_diff_host_rate", rate, "1",
                "different hosts among the dst_host_srv_count, 0 if one"),
        traffic("dst_host_serror_rate", rate, "1", "SYN errors among the dst_host_count"),
        traffic("dst_host_srv_serror_rate", rate, "1", "SYN errors among the dst_host_srv_count"),
        traffic("dst_host_rerror_rate", rate, "1", "REJ errors among the dst_host_count"),
        traffic("dst_host_srv_rerror_rate", rate, "1", "REJ errors among the dst_host_srv_count"),
    )  # fmt: skip


def window_keys(flows: FlowBatch) -> dict[str, NDArray[np.generic]]:
    """What the windows compare of each flow, ``[B]`` each.

    Services are compared as Bro names them, so every unnamed port is a service of its own:
    the published rates of ``private`` and ``other`` connections say so.
    """
    flag = flag_codes(flows).astype(np.intp)
    icmp = np.isin(flows["protocol"], (_ICMP, _ICMP6))
    port = np.where(icmp, flows["icmp_type"], flows["dst_port"]).astype(np.uint64)
    service = np.stack([flows["protocol"].astype(np.uint64), port], axis=1)
    return {
        "host": mix_keys(address_keys(flows["dst_ip"])),
        "service": mix_keys(service),
        "src_port": flows["src_port"].astype(np.uint64),
        "syn_error": _IS_SYN_ERROR[flag],
        "rej_error": _IS_REJ_ERROR[flag],
    }


def remeasure(rows: FloatArray, clock_us: int, rng: np.random.Generator) -> FloatArray:
    """Published rows ``[N, 41]`` as the sensor would measure them: the active timeout applied.

    Times are whole seconds already, so no finer clock changes them.
    """
    result = rows.copy()
    column = SCHEMA.names.index("duration")
    result[:, column] = duration_s(rows[:, column], SCHEMA.meter.active_timeout_s)
    return result


SCHEMA = Schema(
    name="kdd",
    title="KDD Cup 1999 and NSL-KDD, 41 features",
    features=_columns(),
    meter=_METER,
    remeasure=remeasure,
    window_keys=window_keys,
    windows=KddWindows,
)
