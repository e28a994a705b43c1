"""Maintenance: small services that find what is overdue in the ledger, and send it again or close it with a reason."""
