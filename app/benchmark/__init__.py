"""The benchmark: this system, plain Celery and the machine's limit under the same load, in turns, in one run.

What counts are ratios of medians within one run: machines are shared and noisy, and both sides of a ratio
meet the same noise.
"""
