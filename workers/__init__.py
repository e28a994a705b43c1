"""Candlefleet worker nodes: what executes chunks of jobs. Imports `app`, never the other way."""
