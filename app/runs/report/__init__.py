"""The report of a run: one document, told as JSON, as a self-contained page and as CSV."""
