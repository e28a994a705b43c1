"""The command line, `candlefleet`: parses, calls `app.operations` or a service, prints. Decides nothing."""
