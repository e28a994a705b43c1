"""The gate's checks: what must be true of a strategy before it gets jobs. One file a check. Pure: no processes here."""
