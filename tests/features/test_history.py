"""What a host did before: the sensor's memory and training's tables see the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history import HostHistory, host_keys, previous_rows, windows_of
from tests.helpers import make_flow

steady = settings(max_examples=30, deadline=None, database=None, derandomize=True)


def test_windows_by_hand() -> None:
    hosts = np.array([7, 8, 7, 7, 8], np.uint64)
    rows = np.arange(5.0)[:, None]
    before = previous_rows(hosts, 2)
    assert before.tolist() == [[-1, -1], [-1, -1], [-1, 0], [0, 2], [-1, 1]]
    windows = windows_of(rows, before)[:, :, 0]
    np.testing.assert_array_equal(
        windows, [[np.nan, np.nan, 0], [np.nan, np.nan, 1], [np.nan, 0, 2], [0, 2, 3],
                  [np.nan, 1, 4]],
    )  # fmt: skip


def test_no_rows_and_no_depth() -> None:
    assert previous_rows(np.empty(0, np.uint64), 3).shape == (0, 3)
    assert previous_rows(np.zeros(4, np.uint64), 0).shape == (4, 0)
    rows = np.ones((4, 2))
    assert HostHistory(1, 2).push(np.zeros(4, np.uint64), rows).shape == (4, 1, 2)


@steady
@given(
    hosts=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    window=st.integers(1, 5),
    cut=st.integers(0, 60),
)
def test_the_sensor_sees_what_training_sees(hosts: list[int], window: int, cut: int) -> None:
    keys = np.array(hosts, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rows = np.random.default_rng(len(hosts)).integers(0, 1000, (len(hosts), 3)).astype(float)
    history = HostHistory(window, 3, hosts=16)
    # How flows are cut into pushes changes nothing.
    parts = [history.push(keys[part], rows[part]) for part in (slice(0, cut), slice(cut, None))]
    expected = windows_of(rows, previous_rows(keys, window - 1))
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert history.forgotten == 0


def test_the_host_that_was_silent_longest_is_forgotten_first() -> None:
    history = HostHistory(2, 1, hosts=2)
    seen = history.push(np.array([1, 2, 1, 3, 1, 2], np.uint64), np.arange(6.0)[:, None])
    # 3 takes the place of 2, which begins anew; 1 was never silent for long.
    np.testing.assert_array_equal(seen[:, 0, 0], [np.nan, np.nan, 0, np.nan, 2, np.nan])
    assert history.forgotten == 2


def test_amounts_beyond_float32_are_remembered_as_its_end() -> None:
    history = HostHistory(2, 1)
    seen = history.push(np.zeros(2, np.uint64), np.array([[1e300], [2.0]]))
    assert seen[0, 1, 0] == 1e300
    assert np.isfinite(seen[1, 0, 0])


def test_a_host_is_an_address_of_an_origin() -> None:
    flows = np.concatenate(
        [make_flow(), make_flow(src_port=7), make_flow(src_ip="10.0.0.9"), make_flow(origin=1)]
    )
    keys = host_keys(flows)
    assert keys[0] == keys[1]
    assert len({int(key) for key in keys}) == 3
