"""Composites: strategies that are written as params alone, out of other strategies, rules, filters and a gate."""
