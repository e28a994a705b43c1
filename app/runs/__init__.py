"""Batch runs: what their figures mean and how they are told. Pure: no database, broker or clock inside."""
