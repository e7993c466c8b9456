"""What a family of models is: the door through which plugins bring judges of their own (CONTRIBUTING.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # torch, which a family that only compares words does not need
    from transenc.models.device import Compute
    from transenc.scorer import Scorer


class Family(Protocol):
    """Make scorers of model directories.

    A family is a class that is made without arguments. A directory belongs to the family NAME of an entry point when
    its config.json says `"transenc_family": "NAME"`.
    """

    def load(self, path: Path, *, compute: Compute) -> Scorer:
        """Return the scorer of a directory; raise DataError for one that cannot be used.

        Its JSON and weights were checked (docs/security.md), and that model_type, if there is one, is known. There
        need be neither a model_type nor weights. compute: the device and precision that the user asked for.
        """
        ...
