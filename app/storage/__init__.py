"""Postgres: schema, engines, and what is read and written. The truth of the system is here."""
