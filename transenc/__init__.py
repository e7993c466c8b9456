"""Turn a pretrained language model and unlabelled sentences into a bi-encoder and a cross-encoder."""

__version__: str


def __getattr__(name: str) -> str:
    # Only when asked for: importlib.metadata is a fifth of the time of `transenc --help`.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("transenc")
        except PackageNotFoundError:  # a source tree that was not installed
            return "0"
    raise AttributeError(f"module 'transenc' has no attribute '{name}'")
