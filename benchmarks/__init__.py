"""Measurements behind docs/results.md: nothing of transenc imports them."""
