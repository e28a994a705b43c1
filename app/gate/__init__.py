"""The gate's processes: strategies are verified and replayed where their code can harm nothing.

`sandbox` is what the rest of Candlefleet calls. It starts ``python -m app.gate``, which forks a child for each
strategy; the child imports the user's code, is limited and watched, and writes one answer.
"""
