"""Measurements and experiments that the documentation quotes, each to be repeated by one command."""
