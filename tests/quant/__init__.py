"""Strategies as users might write them, for tests: well-behaved ones that show what they saw, and misbehaving ones.

Workers load them like any user code, through the allow-list setting `strategies.modules`.
"""
