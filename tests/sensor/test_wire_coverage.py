"""Every feature that a sensor measures has a capture whose value was worked out by hand."""

from __future__ import annotations

import pytest

from features.registry import SCHEMAS
from features.schema import Kind
from tests.sensor.wire_tables import expectations, tells

ALWAYS_ZERO = {"kdd": {"num_outbound_cmds"}}
"""Features that are 0 by their definition, so that there is no other value to expect."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_live_feature_has_an_expected_value_that_says_something(name: str) -> None:
    found = expectations()[name]
    silent = {
        feature.name
        for feature in SCHEMAS[name].features
        if feature.live
        and not tells(found.get(feature.name, []), category=feature.kind is Kind.CATEGORICAL)
    }
    assert silent == ALWAYS_ZERO.get(name, set())


def test_what_is_0_by_definition_is_expected_to_be() -> None:
    for name, features in ALWAYS_ZERO.items():
        for feature in features:
            assert set(expectations()[name][feature]) == {0}


def test_tables_expect_nothing_of_features_that_do_not_exist() -> None:
    found = expectations()
    assert set(found) == set(SCHEMAS)
    for name, features in found.items():
        assert set(features) <= set(SCHEMAS[name].select(live=True))


@pytest.mark.parametrize(
    ("values", "category", "says_something"),
    [
        ([], False, False),
        ([0, 0.0], False, False),
        ([0, 0.5], False, True),
        ([], True, False),
        (["tcp", "tcp"], True, False),
        (["tcp", "(unknown)"], True, True),
    ],
)
def test_a_value_that_is_always_the_same_says_nothing(
    values: list[object], category: bool, says_something: bool
) -> None:
    assert tells(values, category=category) == says_something
