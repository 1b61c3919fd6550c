"""Which features have values worked out by hand, from the tables of the test_wire files."""

from __future__ import annotations

from collections import defaultdict

from tests.sensor import (
    test_wire,
    test_wire_cic,
    test_wire_flow,
    test_wire_kdd,
    test_wire_windows,
    test_wire_zeek,
)

Expected = dict[str, list[object]]
"""Expected values by feature; those of categories are terms."""


def expectations() -> dict[str, Expected]:
    """By schema, every value that a table expects of a capture."""
    found: dict[str, Expected] = defaultdict(lambda: defaultdict(list))
    for case in test_wire.built().values():
        for schema, row in (("unsw-nb15", case.unsw), ("kdd", case.kdd)):
            for name, value in row.items():
                found[schema][name].append(value)
    for name, (counts, _) in test_wire_windows.TABLE.items():
        found["unsw-nb15"][name] += counts
    for connection in test_wire_kdd.CASES:
        for name, value in connection.expected.items():
            found["kdd"][name].append(value)
    for name, (near, far, _) in test_wire_kdd.WINDOWS.items():
        found["kdd"][name] += [*near, *far]
    found["kdd"]["wrong_fragment"] += [count for count, _ in test_wire_kdd.WRONG_FRAGMENTS.values()]
    for _, name, value, _ in test_wire_cic.CASES:
        found["cicids2017"][name].append(value)
    for _, name, value, _ in test_wire_flow.TABLE:
        found["flow"][name].append(value)
    for name, values in test_wire_zeek.OWN.items():
        found["zeek-conn"][name] += values
    for name, value in test_wire_zeek.LAST.items():
        found["zeek-conn"][name].append(value)
    return found


def tells(values: list[object], *, category: bool) -> bool:
    """Whether the values would notice a feature that is always the same, or never set.

    Of a category there must be two terms, of a number one other than 0.
    """
    return len(set(values)) > 1 if category else any(value != 0 for value in values)
