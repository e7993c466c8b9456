"""Engines: exported scorers, compared with the model they were made from."""
