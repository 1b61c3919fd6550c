"""What HTTP and FTP in plain text are known by, for every meter."""

from __future__ import annotations

HTTP_METHODS = (
    b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ",
    b"PATCH ", b"PROPFIND ",
)  # fmt: skip
"""Request methods: RFC 9110, section 9.3; RFC 5789; the most common of RFC 4918."""

FTP_COMMANDS = frozenset(
    (
        "ABOR ACCT ALLO APPE CDUP CWD DELE EPRT EPSV FEAT HELP LIST MDTM MKD MODE NLST NOOP OPTS "
        "PASS PASV PORT PWD QUIT REIN REST RETR RMD RNFR RNTO SITE SIZE SMNT STAT STOR STOU STRU "
        "SYST TYPE USER XCUP XMKD XPWD XRMD AUTH PBSZ PROT"
    ).encode("ascii").split()
)  # fmt: skip
"""FTP commands: RFC 959, 2228, 2389, 2428, 3659, and the X forms of RFC 1123, 4.1.3.1."""

UNTIL_CLOSE = 1 << 62
"""Body bytes to expect of a response that does not say its length (RFC 9112, section 6.3)."""

MOST_HEAD = 16_384
"""Longest response head that is waited for, in bytes."""
