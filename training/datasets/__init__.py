"""The data sets there are. A new one is a module with a class, and a line in the tuple here."""

from __future__ import annotations

from training.datasets.base import DataSet
from training.datasets.cicids2017 import CicIds2017
from training.datasets.kdd99 import Kdd99
from training.datasets.nsl_kdd import NslKdd
from training.datasets.unsw_nb15 import UnswNb15

_ALL: tuple[DataSet, ...] = (
    UnswNb15(),
    NslKdd(),
    Kdd99(),
    CicIds2017(),
)
DATASETS: dict[str, DataSet] = {data_set.name: data_set for data_set in _ALL}
