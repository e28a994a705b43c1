"""The stress tool: an evaluate run over many markets, on servers of its own, measured and validated."""
