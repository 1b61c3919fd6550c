"""What a score is made of, told apart by hand."""

from __future__ import annotations

import numpy as np
import pytest

from features.encoder import Encoder
from features.registry import SCHEMAS
from models.attribution import attribute, rest_of, usual_values
from models.kinds import KINDS
from models.kinds.prototypes import PrototypeConfig
from models.reference import Reference

KDD = SCHEMAS["kdd"]


def test_others_are_all_that_are_not_named() -> None:
    parts = np.array([[1.0, 4.0, 2.0, 4.0, -0.5], [0.0, 0.0, 3.0, 0.0, -1.0]])
    found = attribute(parts, 2)
    assert found.order[0].tolist() == [1, 3]  # equal ones in their order
    assert found.parts.tolist() == [[4.0, 4.0], [3.0, 0.0]]
    assert found.other.tolist() == [2.5, -1.0]
    assert attribute(parts, 9).other.tolist() == [-0.5, -1.0]  # what is below 0 is never named
    assert attribute(parts[:0], 2).other.shape == (0,)


def test_the_rest_of_every_kind_has_a_name() -> None:
    for kind in KINDS.values():
        assert rest_of(kind.name, kind.defaults) in ("latent", "price", "baseline", "none")
    both = PrototypeConfig(space="latent", price=0.5)
    assert rest_of("prototype-vae", both) == "latent_and_price"
    with pytest.raises(KeyError):
        rest_of("no-such-kind", None)


def test_what_is_usual_by_hand() -> None:
    rows = np.zeros((1000, len(KDD.features)))
    duration, protocol = KDD.index(["duration", "protocol_type"])
    rows[:, duration] = np.arange(1, 1001)
    rows[:, protocol] = [2] * 300 + [-1] * 10 + [1] * 9 + [0] * 681  # icmp, unknown, udp, tcp
    encoder = Encoder.fit(KDD, ["duration", "protocol_type"], rows)
    features = [KDD.features[at] for at in KDD.index(encoder.names)]
    amount, category = usual_values(Reference.of(encoder, rows), features)
    assert (amount.text, amount.low, amount.high) == ("10..990", 10.0, 990.0)
    assert (category.text, category.low, category.high) == ("tcp|icmp|(unknown)", None, None)
