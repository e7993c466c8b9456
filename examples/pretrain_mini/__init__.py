"""Make the raw masked language model `mini` from plain text."""
