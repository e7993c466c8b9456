"""Turn a pretrained language model and unlabelled sentences into a bi-encoder and a cross-encoder."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("transenc")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0"
