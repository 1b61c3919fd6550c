"""Records of cells in a folder: an interrupted evaluation goes on, and repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training.cells import Cell, Drawn, Record


class RecordError(Exception):
    """A record cannot be read or written; the message names the file."""


class Records:
    """Records in a folder."""

    def __init__(self, folder: Path) -> None:
        """Keep them in `folder`, which need not be there yet."""
        self.folder = folder

    def find(self, cell: Cell) -> Record | None:
        """The record of a cell; None if it was not run, or came from other code or sizes.

        Raises:
            RecordError: there is a file which is no record.
        """
        path = self.folder / f"{cell.path}.json"
        try:
            record: Record = json.loads(path.read_text("utf-8"))
            fresh = record["rests_on"] == cell.rests_on()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}: is no record: remove it ({error})") from error
        return record if fresh else None

    def keep(self, cell: Cell, record: Record, drawn: Drawn | None) -> Record:
        """Write a cell's record, whole or not at all.

        Raises:
            RecordError: it cannot be written.
        """
        path = self.folder / f"{cell.path}.json"
        record = {**record, "rests_on": cell.rests_on()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if drawn is not None:
                np.savez_compressed(path.with_suffix(".npz"), **vars(drawn))
            part = path.with_suffix(".part")
            part.write_text(json.dumps(record, allow_nan=False), "utf-8")
            part.replace(path)
        except OSError as error:
            raise RecordError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        return record

    def drawn(self, cell: Cell) -> Drawn | None:
        """What pictures of a cell are drawn from, if it was kept."""
        path = self.folder / f"{cell.path}.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return Drawn(**dict(arrays.items()))
