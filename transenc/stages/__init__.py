"""The stages of a run: inputs on disk become outputs on disk."""
