"""Which captures of the attacks archive hold an attack, and of what sort.

Written down by what the captures' names, folders and collections say, before any was scored. All
flows of a capture count as its sort, also the few of it that are ordinary. What is not listed
(protocol samples, faults, application traffic) is benign.
"""

from __future__ import annotations

from pathlib import PurePath

_MALCOLM = "mmguero-dev+Malcolm-PCAP/pcaps/plugins"
_SANDERS = "chrissanders+packets"
_BOOK = "PracticalPacketAnalysis/ppa-capture-files"
_NDPI = "ntop+nDPI/tests/cfgs/default/pcap"

ATTACKS: dict[str, tuple[str, ...]] = {
    "scan": (
        "annie-unsw/pcap/nmap/nmap.pcapng",
        "rustiflow/concap/completed/nmap-ss/dump.pcap",
        "example/completed/nmap-tcp-syn-version/dump.pcap",
        "example/completed/nmap-udp-version/dump.pcap",
        f"{_SANDERS}/activeosfingerprinting.pcapng",
        f"{_SANDERS}/synscan.pcapng",
        f"{_BOOK}/osfingerprinting.pcap",
        f"{_BOOK}/portscan.pcap",
        f"{_MALCOLM}/bro-simple-scan/445_scan.pcap",
        f"{_MALCOLM}/bro-simple-scan/multiport_scan.pcap",
        f"{_MALCOLM}/bro-simple-scan/port_scan.pcap",
        f"{_MALCOLM}/bro-simple-scan/scan_with_zero_windows.pcap",
        f"{_NDPI}/synscan.pcap",
        f"{_NDPI}/tcp_scan.pcapng",
    ),
    "flood": (
        "annie-unsw/pcap/DDos/DDos.pcapng",
        "StopDDoS+packet-captures/amp.TCP.syn.optionallyACK.optionallysamePort.pcapng",
        "StopDDoS+packet-captures/amp.UDP.bacnet.IOT.37810.pcapng",
        "StopDDoS+packet-captures/amp.UDP.snmp.src161.pcapng",
        "StopDDoS+packet-captures/amp.dns.RRSIG.fragmented.pcap",
        "StopDDoS+packet-captures/pkt.TCP.synflood.spoofed.pcap",
        f"{_MALCOLM}/bro-simple-scan/backscatter.trace",
    ),
    "web": (
        "debian-ndpi-4.2/tests/pcap/WebattackXSS.pcap",
        f"{_NDPI}/WebattackRCE.pcap",
        f"{_NDPI}/sql_injection.pcap",
        f"{_NDPI}/xss.pcap",
        f"{_NDPI}/log4j-webapp-exploit.pcap",
        f"{_SANDERS}/http_dvwa_directorytraversal.pcapng",
        f"{_SANDERS}/http_dvwa_sqlinjection.pcapng",
        f"{_SANDERS}/http_dvwa_sqlinjection_passwords.pcapng",
        f"{_MALCOLM}/CVE-2021-38647/CVE-2021-38647-exploit-craigmunsw-omigod-lab.pcap",
        f"{_MALCOLM}/CVE-2021-41773/apache_exploit_success.pcap",
        f"{_MALCOLM}/cve-2021-44228/log4j-attack.pcap",
        f"{_MALCOLM}/cve-2021-44228/log4j-user_agent.pcap",
        f"{_MALCOLM}/cve-2021-44228/log4j-webapp.pcap",
        f"{_MALCOLM}/cve-2021-44228/spcap-CEXKLs3NQWdEM2CoMj-1639421287179170294-1.pcap",
        f"{_MALCOLM}/cve-2022-21907/constructed.pcap",
        f"{_MALCOLM}/cve-2022-22954/attempt-constructed.pcap",
        f"{_MALCOLM}/cve-2022-22954/successful-constructed.pcap",
        f"{_MALCOLM}/zeek-httpattacks/http.trace",
    ),
    "exploit": (
        f"{_SANDERS}/aurora.pcapng",
        f"{_NDPI}/shell.pcap",
        f"{_MALCOLM}/CVE-2020-16898/pi3_poc.pcap",
        f"{_MALCOLM}/CVE-2021-1675/PrintNightmare.pcap",
        f"{_MALCOLM}/CVE-2021-1675/cve-2021-1675.pcap",
        f"{_MALCOLM}/CVE-2021-1675/packetcapture_1.pcap",
        f"{_MALCOLM}/CVE-2021-1675/packetcapture_2.pcap",
        f"{_MALCOLM}/CVE-2022-24491/CVE-2022-24491.pcap",
        f"{_MALCOLM}/CVE-2022-24497/CVE-2022-24497.pcap",
        f"{_MALCOLM}/CVE-2022-26937/CVE-2022-26937-exploited.pcap",
        f"{_MALCOLM}/CVE-2022-3602/sample_OpenSSLv3.0.5.pcap",
        f"{_MALCOLM}/CVE-2022-3602/spookyssl-merged.pcap",
        f"{_MALCOLM}/SIGred/cve-2020-1350_with_tcp_handshake.pcap",
        f"{_MALCOLM}/SIGred/sigxploit.pcap",
        f"{_MALCOLM}/cve-2020-0601/broken.pcap",
        f"{_MALCOLM}/cve-2020-0601/explicit.pcap",
        f"{_MALCOLM}/cve-2020-0601/exploit.pcap",
        f"{_MALCOLM}/cve-2022-26809/cve-2022-26809-4.pcap",
        f"{_MALCOLM}/ripple20/dns_caa_records.pcap",
        f"{_MALCOLM}/ripple20/dns_hip_invalid_character.pcap",
        f"{_MALCOLM}/ripple20/dns_long_cname.pcap",
        f"{_MALCOLM}/ripple20/dns_variant_2.pcap",
        f"{_MALCOLM}/ripple20/ipv6_rh0_poc.pcap",
    ),
    "malware": (
        "markofu+pcaps/CounterHack/HackChallenge_Cmas2011.pcap",
        "markofu+pcaps/HoneyNet/1112/fc_0.pcap",
        "debian-ndpi-4.2/tests/pcap/malware.pcap",
        f"{_NDPI}/malware.pcap",
        f"{_NDPI}/bot.pcap",
        f"{_NDPI}/emotet.pcap",
        f"{_NDPI}/trickbot.pcap",
        f"{_SANDERS}/cryptowall4_c2.pcapng",
        f"{_SANDERS}/ek_to_cryptowall4.pcapng",
        f"{_SANDERS}/ratinfected.pcapng",
        f"{_BOOK}/blaster.pcap",
        f"{_MALCOLM}/smb_mimikatz_copy_to_host.pcap",
        f"{_MALCOLM}/zeek-strrat-detector/strrat-4423258f-59bc-4a88-bfec-d8ac08c88538.pcap",
    ),
    "tunnel": (
        f"{_NDPI}/bad-dns-traffic.pcap",
        f"{_NDPI}/dns-tunnel-iodine.pcap",
        f"{_NDPI}/dns2tcp_tunnel.pcap",
        f"{_NDPI}/dns_exfiltration.pcap",
        f"{_NDPI}/icmp-tunnel.pcap",
        f"{_MALCOLM}/Pingback/Pingback_ICMP.pcap",
        f"{_MALCOLM}/cve-2021-44228/log4j-dns_exfil.pcap",
        f"{_BOOK}/covertinfo.pcap",
    ),
    "spoofing": (f"{_SANDERS}/arppoison.pcapng", f"{_SANDERS}/sessionhijacking.pcapng"),
}
"""By sort; none of the archive's names speaks of guessed passwords alone."""

BURSTS = ("scan", "flood", "guessing")
"""Sorts of which nearly every flow should be found."""


def sort_of(path: str) -> str:
    """The sort of attack that a capture holds; empty for a benign one."""
    for sort, names in ATTACKS.items():
        if path.endswith(names):
            return sort
    return ""


def development(path: str) -> bool:
    """Whether a capture may be looked at while a design is chosen: every other one of its sort."""
    names = sorted(ATTACKS.get(sort_of(path), ()), key=lambda name: PurePath(name).name)
    return any(path.endswith(name) for name in names[::2])
