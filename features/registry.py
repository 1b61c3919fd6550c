"""The schemas there are. A new one is a module with a ``SCHEMA``, added to the tuple here."""

from __future__ import annotations

from features import cic, flow, kdd, unsw_nb15, zeek_conn
from features.schema import Schema

SCHEMAS: dict[str, Schema] = {
    module.SCHEMA.name: module.SCHEMA for module in (unsw_nb15, kdd, cic, flow, zeek_conn)
}
