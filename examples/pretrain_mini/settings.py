"""Hold everything that decides the weights, and the checks on it."""

from dataclasses import dataclass

from transenc.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Say everything that decides the weights; a checkpoint of other settings is refused."""

    steps: int = 10_000  # planned; may change on resume while the rate is still constant
    rows: int = 32  # rows a step
    row_length: int = 64  # tokens a row
    learning_rate: float = 1e-3  # its peak
    warmup: int = 200  # steps of linear rise
    decay_share: float = 0.4  # last share of the steps, linear fall to 0
    mask_rate: float = 0.15  # share of tokens hidden
    weight_decay: float = 0.01  # on matrices only
    dropout: float = 0.0  # none: the corpus is read only a few times
    norm: str = "post"  # layer norm after (BERT) or before each block
    layers: int = 4
    width: int = 256
    ffn: int = 1024
    heads: int = 4
    positions: int = 128  # longest input of the finished model
    repeat: float = (
        0.0  # share of rows in which each sentence stands twice, the second time with words missing
    )
    start: str = ""  # a finished or stopped run whose vocabulary and newest weights this one goes on from
    window: int = 4  # reach of the co-occurrence counts that start the word embeddings; 0: random start
    embedding_std: float = 0.02  # scale of the started word embeddings
    precision: str = "fp32"  # "bf16": autocast with fp32 master weights
    seed: int = 0


def check_settings(settings: Settings) -> None:
    """Refuse values that cannot work."""
    problems = {
        "steps": settings.steps < 1,
        "rows": settings.rows < 1,
        "row_length": not 8 <= settings.row_length <= settings.positions,
        "learning_rate": not 0 < settings.learning_rate < 1,
        "decay_share": not 0 <= settings.decay_share <= 1,
        "mask_rate": not 0 < settings.mask_rate < 1,
        "repeat": not 0 <= settings.repeat <= 1,
        "dropout": not 0 <= settings.dropout < 1,
        "norm": settings.norm not in ("post", "pre"),
        "heads": settings.heads < 1 or settings.width % settings.heads != 0,
        "layers": settings.layers < 1,
        "precision": settings.precision not in ("fp32", "bf16"),
    }
    if bad := [f"{name}={getattr(settings, name)!r}" for name, wrong in problems.items() if wrong]:
        raise ConfigError(
            f"Settings out of range: {', '.join(bad)}. See `python -m examples.pretrain_mini train --help`."
        )
