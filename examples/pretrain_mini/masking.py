"""Hide tokens for the masked-LM objective: 80% [MASK], 10% another, 10% left (Devlin et al. 2019, 3.1)."""

from typing import NamedTuple

import numpy as np


class Masked(NamedTuple):
    """One step's input and what is to be predicted."""

    inputs: np.ndarray  # (rows, length) ids with some tokens hidden
    positions: np.ndarray  # (masked,) index into the flattened rows, ascending
    targets: np.ndarray  # (masked,) the ids that were there


def mask_rows(
    rows: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float,
    mask_id: int,
    specials: int,
    vocabulary_size: int,
) -> Masked:
    """Hide the same number of tokens in every step, never a special one (ids below `specials`).

    A fixed number keeps every tensor shape the same.
    """
    flat = rows.reshape(-1)
    keys = rng.random(flat.size)
    keys[flat < specials] = 2.0  # sorts behind every ordinary token
    wanted = min(max(round(rate * flat.size), 1), int((flat >= specials).sum()))
    positions = np.sort(np.argpartition(keys, wanted - 1)[:wanted])
    targets = flat[positions].astype(np.int64)
    fate = rng.random(wanted)
    others = rng.integers(specials, vocabulary_size, wanted)
    hidden = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, others, targets))
    inputs = flat.astype(np.int64)
    inputs[positions] = hidden
    return Masked(inputs.reshape(rows.shape), positions, targets)
