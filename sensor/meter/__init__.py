"""Meters: packets in, FlowBatches out."""
