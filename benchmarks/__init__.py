"""Measurements behind docs/results.md and docs/performance.md: nothing of transenc imports them."""
