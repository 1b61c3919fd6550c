"""What the published KDD rows say about how they were made, wherever the definitions leave it open.

Over the three published files: KDD Cup 1999's ten percent, in the order of the full file with
gaps, and NSL-KDD's two. Each test is one finding that :mod:`features.kdd`,
:mod:`features.windows` or :mod:`sensor.meter.content` rests on.
"""

from __future__ import annotations

import collections
import functools
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import kdd
from features.flows import unpack_address
from features.schema import FloatArray
from features.windows import HOST_WINDOW_FLOWS, TIME_WINDOW_FLOWS
from sensor.captures import CaptureSpool, chain
from sensor.meter.stock import StockMeter
from tests.helpers import DATA

FILES = {
    "ten percent": DATA / "kdd99" / "kddcup.data_10_percent.gz",
    "NSL train": DATA / "nsl-kdd" / "KDDTrain+.txt.gz",
    "NSL test": DATA / "nsl-kdd" / "KDDTest+.txt.gz",
}
pytestmark = pytest.mark.skipif(
    not all(path.is_file() for path in FILES.values()),
    reason=f"the KDD files are not in {DATA}; set FLOWVANE_CORPUS to where they are",
)
every_file = pytest.mark.parametrize("name", FILES)

WINDOWED = {
    # Rate: what it is a share of, what must be the same for "different" to be 0.
    "serror_rate": "count",
    "srv_serror_rate": "srv_count",
    "rerror_rate": "count",
    "srv_rerror_rate": "srv_count",
    "same_srv_rate": "count",
    "diff_srv_rate": "count",
    "srv_diff_host_rate": "srv_count",
    "dst_host_same_srv_rate": "dst_host_count",
    "dst_host_diff_srv_rate": "dst_host_count",
    "dst_host_same_src_port_rate": "dst_host_count",
    "dst_host_srv_diff_host_rate": "dst_host_srv_count",
    "dst_host_serror_rate": "dst_host_count",
    "dst_host_srv_serror_rate": "dst_host_srv_count",
    "dst_host_rerror_rate": "dst_host_count",
    "dst_host_srv_rerror_rate": "dst_host_srv_count",
}


@functools.cache
def rows_of(name: str) -> pd.DataFrame:
    columns = [*kdd.SCHEMA.names, "label"]
    rows = pd.read_csv(FILES[name], header=None, usecols=range(42), names=columns)
    rows["label"] = rows["label"].str.rstrip(".")
    return rows


@functools.cache
def different_rows() -> pd.DataFrame:
    """The rows of all files, each once."""
    return pd.concat([rows_of(name) for name in FILES]).drop_duplicates(ignore_index=True)


def printed(part: FloatArray, whole: FloatArray) -> FloatArray:
    """The single-precision quotient, printed with two decimals."""
    single = (part / whole).astype(np.float32).astype(np.float64)
    rounded: FloatArray = np.rint(single * 100) / 100
    return rounded


def whole_numbers(rows: pd.DataFrame, rate: str) -> tuple[FloatArray, FloatArray]:
    """Of rows with fewer than 90 connections, where the rate tells their number: it and all."""
    few = rows[(rows[WINDOWED[rate]] > 0) & (rows[WINDOWED[rate]] < 90)]
    whole = few[WINDOWED[rate]].to_numpy(float)
    return np.rint(few[rate].to_numpy() * whole), whole


# ---------------------------------------------------------------------------------------
# Windows


@every_file
@pytest.mark.parametrize("rate", WINDOWED)
def test_rates_are_whole_numbers_over_counts_in_single_precision(name: str, rate: str) -> None:
    rows = rows_of(name)
    rows = rows[rows[WINDOWED[rate]] > 0]
    whole, published = rows[WINDOWED[rate]].to_numpy(float), rows[rate].to_numpy()
    near = np.rint(published * whole)
    matches = np.zeros(len(rows), bool)
    for step in (-3, -2, -1, 0, 1, 2, 3):
        part = np.clip(near + step, 0, whole)
        matches |= np.abs(printed(part, whole) - published) < 1e-6
    assert matches.all()


def test_no_other_rounding_fits() -> None:
    rows = different_rows()
    forty = rows[rows["dst_host_count"] == 40]["dst_host_same_src_port_rate"]
    part = np.rint(forty.to_numpy() * 40)
    seen = dict(zip(part, forty, strict=True))
    # Ties of the exact quotients: neither all up nor all to even, but as single precision falls.
    assert (seen[1], seen[11], seen[19]) == (0.03, 0.28, 0.47)


@every_file
def test_one_connection_shows_who_is_in_error(name: str) -> None:
    rows = rows_of(name)
    for count, syn, rej in (
        ("count", "serror_rate", "rerror_rate"),
        ("srv_count", "srv_serror_rate", "srv_rerror_rate"),
    ):
        alone = rows[rows[count] == 1]
        assert (alone[syn] == alone["flag"].isin(kdd.SYN_ERRORS)).all()
        assert (alone[rej] == alone["flag"].isin(kdd.REJ_ERRORS)).all()


@every_file
def test_the_windows_hold_511_and_255_connections_of_all_hosts(name: str) -> None:
    rows = rows_of(name)
    assert rows["count"].max() == rows["srv_count"].max() == TIME_WINDOW_FLOWS
    assert rows["dst_host_count"].max() == HOST_WINDOW_FLOWS
    assert rows["dst_host_srv_count"].max() == HOST_WINDOW_FLOWS
    for host, service, rate, bound in (
        ("dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate", HOST_WINDOW_FLOWS),
        ("count", "srv_count", "same_srv_rate", TIME_WINDOW_FLOWS),
    ):
        both, hosts = whole_numbers(rows, rate)
        services = rows.loc[(rows[host] > 0) & (rows[host] < 90), service].to_numpy()
        # To the same host or to the same service: a window for each host could hold more.
        assert (hosts + services - both).max() <= bound
        assert (both <= services).all()


@every_file
def test_different_is_the_number_of_different_ones(name: str) -> None:
    rows = rows_of(name)
    for same, different in (
        ("same_srv_rate", "diff_srv_rate"),
        ("dst_host_same_srv_rate", "dst_host_diff_srv_rate"),
    ):
        agree, count = whole_numbers(rows, same)
        services, _ = whole_numbers(rows, different)
        assert ((agree == count) == (services == 0)).all()
        others = agree < count
        # One that differs makes two services, not one.
        assert (services[agree == count - 1] == 2).all()
        assert (services[others] >= 2).all()
        assert (services[others] <= (count - agree + 1)[others]).all()
    for different in ("srv_diff_host_rate", "dst_host_srv_diff_host_rate"):
        hosts, _ = whole_numbers(rows, different)
        assert not (hosts == 1).any()


def test_services_are_told_apart_by_port() -> None:
    # KDD names 70 services, but as many differ as there are connections.
    rows = different_rows()
    assert set(kdd.SERVICES) - set(rows["service"]) == {"icmp"}
    assert rows["service"].nunique() == 70
    assert (rows["diff_srv_rate"] * rows["count"]).max() == 511
    assert (rows["dst_host_diff_srv_rate"] * rows["dst_host_count"]).max() == 255


@every_file
def test_source_ports_are_counted_among_the_connections_to_the_host(name: str) -> None:
    # The row itself is one of them, so there is at least one; among the service's there is not.
    rows = rows_of(name)
    part, _ = whole_numbers(rows, "dst_host_same_src_port_rate")
    assert (part >= 1).all()
    few = rows[(rows["dst_host_srv_count"] > 50) & (rows["dst_host_count"] == 1)]
    assert (few["dst_host_same_src_port_rate"] == 1).all()


def test_connections_of_a_burst_count_each_other() -> None:
    # Nearly all teardrops were kept in the ten percent, in order: each counts one more.
    rows = rows_of("ten percent")
    at = rows.index[rows["label"] == "teardrop"]
    before = at[:-1][np.diff(at) == 1]
    more = rows["count"].loc[before + 1].to_numpy() - rows["count"].loc[before].to_numpy()
    assert (more == 1).mean() > 0.99


def test_rows_are_in_order_of_their_beginning() -> None:
    """A slow scan whose connections all end together: the later begun, the shorter.

    So KDD looked back from the beginning of a connection. A sensor knows a connection when it has
    ended, and looks back from there: the same for the 98 % of rows of at most 2 s.
    """
    rows = rows_of("ten percent")
    scan = rows[(rows["label"] == "portsweep") & (rows["duration"] > 1000)].loc[144_553:144_765]
    assert len(scan) > 70
    assert (np.diff(scan["duration"]) < 0).all()
    # Every tenth connection was kept: those of no duration in between take their time as well.
    gaps = -np.diff(scan["duration"]) / np.diff(scan.index)
    assert 90 < np.median(gaps) < 130
    assert np.corrcoef(scan.index, scan["duration"])[0, 1] < -0.99
    assert (rows["duration"] <= 2).mean() > 0.98


# ---------------------------------------------------------------------------------------
# Basic features


def test_udp_and_icmp_are_always_sf() -> None:
    rows = different_rows()
    assert set(rows.loc[rows["protocol_type"] != "tcp", "flag"]) == {"SF"}
    assert set(rows["flag"]) == set(kdd.FLAGS)


def test_flags_say_what_can_have_been_carried() -> None:
    rows = different_rows()
    silent = rows[rows["flag"].isin(["REJ", "SH"])]
    assert (silent[["src_bytes", "dst_bytes"]] == 0).all(axis=None)
    # A scan with FIN alone, nmap's, is SH: there is no SYN in it.
    assert (rows.loc[rows["flag"] == "SH", "label"] == "nmap").mean() > 0.8


def test_icmp_bytes_count_the_header() -> None:
    rows = different_rows()
    icmp = rows[rows["protocol_type"] == "icmp"]
    assert icmp["src_bytes"].min() == 8
    smurf = icmp.loc[icmp["label"] == "smurf", "src_bytes"]
    # 512 and 1,024 bytes of data, nearly all.
    assert set(smurf) == {508, 520, 1008, 1032}
    assert smurf.isin([520, 1032]).mean() > 0.9
    # One packet a record.
    assert (icmp[["duration", "dst_bytes"]] == 0).all(axis=None)


def test_services_belong_to_one_protocol_but_for_the_unnamed() -> None:
    rows = different_rows()
    of = rows.groupby("service")["protocol_type"].agg(lambda each: tuple(sorted(set(each))))
    several = {service for service, protocols in of.items() if len(protocols) > 1}
    assert several == {"other", "private"}
    by_icmp = {service for service, protocols in of.items() if protocols == ("icmp",)}
    assert by_icmp == {"eco_i", "ecr_i", "red_i", "tim_i", "urh_i", "urp_i"}
    by_udp = {service for service, protocols in of.items() if protocols == ("udp",)}
    assert by_udp == {"domain_u", "ntp_u", "tftp_u"}


def test_ftp_data_is_opened_by_the_server() -> None:
    rows = different_rows()
    data = rows[(rows["service"] == "ftp_data") & (rows["flag"] == "SF")]
    assert ((data["src_bytes"] > 0) & (data["dst_bytes"] == 0)).mean() > 0.98


def test_wrong_fragments_come_from_putting_datagrams_together() -> None:
    """The rule is that of :mod:`sensor.meter.compiled.fragments`.

    Captures worked out by hand have 3 for a teardrop and 1 for a ping of death, too
    (tests/sensor/test_wire_kdd.py).
    """
    rows = different_rows()
    wrong = rows[rows["wrong_fragment"] > 0]
    teardrop = wrong[wrong["protocol_type"] == "udp"]
    death = wrong[wrong["protocol_type"] == "icmp"]
    assert set(teardrop["label"]) | set(death["label"]) == {"teardrop", "pod", "normal"}
    assert set(teardrop["wrong_fragment"]) == {1, 3}
    assert (teardrop["wrong_fragment"] == 3).mean() > 0.98
    assert set(death["wrong_fragment"]) == {1}
    # The bytes are those of the first fragment.
    assert set(teardrop["src_bytes"]) == {28}
    assert (death["src_bytes"] == 1480).mean() > 0.99


# ---------------------------------------------------------------------------------------
# Content


def logged_in(service: str, **where: bool) -> tuple[float, int]:
    """Share logged in, and number, of the rows of a service with bytes (True) or none (False)."""
    rows = different_rows()
    some = rows[rows["service"] == service]
    for side, bytes_sent in where.items():
        some = some[(some[f"{side}_bytes"] > 0) == bytes_sent]
    return float(some["logged_in"].mean()), len(some)


def test_http_is_logged_in_with_a_request() -> None:
    assert logged_in("http", src=True)[0] > 0.999
    assert logged_in("http", src=False, dst=True)[0] < 0.05
    rows = different_rows()
    opened = rows[(rows["service"] == "http") & ~rows["flag"].isin(["S0", "REJ", "SH", "RSTOS0"])]
    assert ((opened["src_bytes"] > 0) == opened["logged_in"]).mean() > 0.998


def test_smtp_and_pop3_are_logged_in_once_the_server_speaks() -> None:
    for service in ("smtp", "pop_3"):
        assert logged_in(service, dst=True)[0] > 0.998
        assert logged_in(service, dst=False)[0] < 0.02
    # Guessed passwords among them.
    rows = different_rows()
    guessed = rows[(rows["label"] == "guess_passwd") & (rows["service"] == "pop_3")]
    assert len(guessed) == 750
    assert (guessed["logged_in"] == 1).all()
    assert (guessed["num_failed_logins"] == 0).all()


def test_finger_and_udp_are_never_logged_in() -> None:
    assert logged_in("finger", dst=True) == (0.0, 933)
    assert logged_in("ntp_u", dst=True)[0] == logged_in("domain_u", dst=True)[0] == 0


def test_telnet_and_ftp_are_logged_in_unless_refused() -> None:
    rows = different_rows()
    for service in ("telnet", "ftp"):
        some = rows[(rows["service"] == service) & (rows["label"] == "guess_passwd")]
        assert (some["num_failed_logins"] > 0).mean() > 0.95
        assert some["logged_in"].mean() < 0.05


def test_nothing_is_counted_of_a_session_that_did_not_begin() -> None:
    rows = different_rows()
    none = rows[rows["flag"].isin(["REJ", "SH"])]
    content = none[list(kdd.SCHEMA.names[9:22])]
    # But for two rows of a port scan with a hot indicator each.
    assert int((content != 0).sum().sum()) == int((none["hot"] > 0).sum()) == 2


def test_a_guest_is_one_by_name_and_is_not_hot_for_it() -> None:
    rows = different_rows()
    refused = rows[
        (rows["service"] == "ftp") & (rows["label"] == "guess_passwd") & (rows["hot"] == 0)
    ]
    assert len(refused) == 96
    assert (refused["is_guest_login"] == 1).all()
    assert (refused["logged_in"] == 0).all()


def test_a_guests_transfers_are_hot_and_a_users_stores() -> None:
    rows = different_rows()
    ftp = rows[(rows["service"] == "ftp") & (rows["logged_in"] == 1)]
    guests = ftp[(ftp["is_guest_login"] == 1) & (ftp["label"] == "normal")]
    # As many octets of commands for each: a PORT and a RETR.
    slope = np.polyfit(guests["hot"], guests["src_bytes"], 1)[0]
    assert 40 < slope < 55
    users = ftp[ftp["is_guest_login"] == 0]
    stores = users[users["num_file_creations"] > 0]
    assert (abs(stores["hot"] - stores["num_file_creations"]) <= 1).all()
    assert (guests["num_file_creations"] == 0).mean() > 0.98


def test_su_attempted_is_two_with_a_root_shell() -> None:
    rows = different_rows()
    assert set(rows["su_attempted"]) == {0, 1, 2}
    assert (rows.loc[rows["su_attempted"] == 2, "root_shell"] == 1).all()
    assert (rows.loc[rows["su_attempted"] == 1, "root_shell"] == 1).mean() < 0.5


def test_num_root_counts_lines_that_name_root() -> None:
    rows = different_rows()
    lists = rows[(rows["service"] == "ftp_data") & (rows["num_root"] > 3)]
    assert len(lists) > 500
    # A line of `ls -l` has some 80 octets; the connection carries nothing else.
    each = lists["src_bytes"] / lists["num_root"]
    assert each.between(80, 115).mean() > 0.98
    # An answer to ident is one line that names a user.
    ident = rows[(rows["service"] == "auth") & (rows["num_root"] > 0)]
    assert (ident["num_root"] == 1).all()


def test_file_creations_are_not_hot_in_telnet() -> None:
    rows = different_rows()
    normal = rows[(rows["service"] == "telnet") & (rows["label"] == "normal")]
    busy = normal[normal["num_file_creations"] >= 5]
    assert len(busy) > 50
    assert (busy["hot"] == 0).mean() > 0.75


def test_hot_things_of_http_are_those_of_phf_and_back() -> None:
    rows = different_rows()
    phf = rows[(rows["label"] == "phf") & (rows["flag"] == "SF")]
    assert len(phf) == 5
    assert (phf[["hot", "num_access_files", "logged_in"]] == [2, 1, 1]).all(axis=None)
    # Not followed: a command passed to a program has no root shell here.
    assert (phf["root_shell"] == 1).all()
    back = rows[(rows["label"] == "back") & (rows["flag"] == "SF")]
    assert (back["hot"] == back["num_compromised"] + 1).mean() > 0.99


def test_no_outbound_commands_and_hardly_a_host_login() -> None:
    rows = different_rows()
    assert (rows["num_outbound_cmds"] == 0).all()
    hosts = rows[rows["is_host_login"] == 1]
    assert len(hosts) == 12
    assert (hosts[["logged_in"]] == 1).all(axis=None)
    assert (hosts["hot"] >= 1).all()


# ---------------------------------------------------------------------------------------
# The connection states of a real Zeek

ZEEK = DATA / "pairs" / "zeek" / "zeek-8.2.2-conn.tsv.log"
ARCHIVE = DATA / "pcaps" / "benign-apps.tar.xz"


@pytest.mark.skipif(
    not (ZEEK.is_file() and ARCHIVE.is_file()), reason=f"no Zeek log and captures in {DATA}"
)
def test_flags_are_the_states_of_zeeks_log(tmp_path: Path) -> None:
    """Zeek's log is of the second capture in the archive (found by its addresses)."""
    path = tmp_path / "1kxun.pcap"
    with tarfile.open(ARCHIVE, "r|xz") as archive:
        for member in archive:
            if member.name.endswith("/1kxun.pcap"):
                content = archive.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
                break
    settings = kdd.SCHEMA.meter
    with CaptureSpool() as spool:
        chains = chain([spool.open(path)], settings.idle_timeout_s * 1_000_000)
        flows = np.concatenate(list(StockMeter(chains, settings).flows()))
    ours = {}
    for flow, code in zip(flows, kdd.flag_codes(flows), strict=True):
        ends = [
            (unpack_address(flow[f"{side}_ip"], flow["ip_version"]), str(flow[f"{side}_port"]))
            for side in ("src", "dst")
        ]
        # Zeek may take the other side for the originator where it saw no SYN.
        ours[tuple(ends)] = ours[tuple(ends[::-1])] = kdd.FLAGS[int(code)]
    pairs = []
    for line in ZEEK.read_text().splitlines():
        cells = line.split("\t")
        if len(cells) > 11 and cells[6] == "tcp":
            key = ((cells[2], cells[3]), (cells[4], cells[5]))
            pairs.append((cells[11], ours[key]))
    assert len(pairs) == 33
    differ = collections.Counter((zeek, flag) for zeek, flag in pairs if zeek != flag)
    # One: a FIN and, 9 s later, a reset, which are two connections to Zeek and one flow here.
    assert differ == {("OTH", "SH"): 1}
