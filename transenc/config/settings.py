"""Run settings: frozen groups with every field explained, and what objectives and priming methods there are."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from transenc.errors import ConfigError
from transenc.registry import did_you_mean

# Names and sources; the functions are in objectives.py, which needs torch.
OBJECTIVES = {
    "soft_bce": "binary cross-entropy of logits with soft labels (Trans-Encoder, section 2.2)",
    "cosine_mse": "mean squared error of scores with labels (Trans-Encoder, section 2.3)",
    "cosent": "every two pairs in the labels' order (CoSENT, Su 2022)",
    "angle": "CoSENT of cosines and of angles in complex space (AnglE, Li and Li 2023)",
    "listnet": "cross-entropy of a batch's softmax with that of its labels (RankCSE, Liu et al. 2023)",
    "listmle": "likelihood of the labels' order of a batch (RankCSE, Liu et al. 2023)",
    "margin_mse": "mean squared error of the differences between every two pairs (Hofstätter et al. 2020)",
    "kl": "divergence of softened probabilities from softened labels (Hinton et al. 2015)",
    "contrastive": "pull positives together, push negatives beyond a margin (Hadsell et al. 2006)",
}
COMPARING = ("cosent", "angle", "listnet", "listmle", "margin_mse")  # whose loss of one pair alone is 0
# Families an objective does not fit, and why.
UNFIT = {
    ("soft_bce", "bi"): "needs a logit, which a cosine is not",
    ("kl", "bi"): "needs a logit, which a cosine is not (listnet is the divergence over a batch)",
    ("contrastive", "cross"): "needs a distance of vectors, which a cross-encoder does not have",
    ("angle", "cross"): "needs one vector a sentence, which a cross-encoder does not have",
}


def check_objective(name: str, family: str, group: str = "") -> None:
    """Raise ConfigError when the objective of a settings group does not fit the family, naming those that do."""
    if (name, family) in UNFIT:
        fit = ", ".join(n for n in OBJECTIVES if (n, family) not in UNFIT)
        raise ConfigError(
            f"Setting '{group or f'distill.{family}'}.objective' is '{name}', which {UNFIT[name, family]}. "
            f"There are: {fit}."
        )


def parse_average(value: str) -> tuple[str, float]:
    """Split `ema:0.999` or `last:0.5` into kind and number; raise ValueError for anything else but `none`."""
    if value == "none":
        return "none", 0.0
    kind, _, number = value.partition(":")
    if kind in ("ema", "last") and re.fullmatch(r"0?\.\d+|1(\.0*)?", number):
        parsed = float(number)
        if 0 < parsed < 1 or (kind == "last" and parsed == 1):
            return kind, parsed
    raise ValueError("there are: none, ema:0.999 (a decay below 1), last:0.5 (a share of the steps)")


def listed(value: Any) -> Any:
    """Return a list, or one name alone, as the tuple that a field holds."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def never_empty(value: Any) -> Any:
    """Raise ValueError for an empty name, as of a variable that a template left out; it would count as none given."""
    if value == "":
        raise ValueError("name one, or leave it out")
    return value


class Frozen(BaseModel):
    """A settings group."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class FitSettings(Frozen):
    """How one training runs."""

    epochs: int = Field(1, ge=1, description="Passes over the examples.")
    batch_size: int = Field(32, ge=1, description="Examples a step.")
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of AdamW.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the steps in which the rate rises linearly.")
    schedule: Literal["linear", "constant"] = Field("linear", description="The rate after warm-up.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW decay; biases and normalisations are spared.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_length: int | None = Field(
        64,
        ge=4,
        description="Tokens a text (or pair) is cut to in training; a model of a tuned start reads what that does, "
        "others as many. null: by the text.",
    )
    evaluate_every: int = Field(200, ge=1, description="Steps of an epoch between two development scores.")
    drop_last: bool = Field(False, description="Leave out the last, smaller batch of an epoch.")
    average: str = Field(
        "none",
        description="Weights that are scored and kept: none, ema:DECAY, or last:SHARE of the steps' mean.",
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout while training; null keeps the model's own."
    )
    keep_start: bool = Field(
        False,
        description="Let the weights that training starts from be a candidate too, where checkpoints are chosen.",
    )

    @field_validator("average")
    @classmethod
    def _average(cls, value: str) -> str:
        parse_average(value)
        return value


class PrimeSettings(FitSettings):
    """Contrastive priming; METHODS has what each method changes here, and its source."""

    method: Literal[
        "auto", "none", "simcse", "esimcse", "mirror", "mirror-drophead", "whitening", "pairs"
    ] = Field("auto", description="auto: simcse, or none for a start that is tuned for similarity already.")
    batch_size: int = Field(
        64, ge=2, description="Sentences (or pairs) a step; each is the others' negative."
    )
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW decay.")
    max_length: int | None = Field(
        32,
        ge=4,
        description="Tokens a text is cut to in training; a model of a tuned start reads what that does, others as "
        "many. null: by the text.",
    )
    temperature: float = Field(0.05, gt=0, description="Softmax temperature of the contrastive loss.")
    head: bool = Field(
        True, description="Train through a dense+tanh head that is dropped afterwards (SimCSE)."
    )
    span_mask: int = Field(
        0, ge=0, description="Length of the span masked in the second view (Mirror-BERT); 0 off."
    )
    span_unit: Literal["char", "token"] = Field(
        "char", description="What span_mask counts; char as published."
    )
    repeat: float = Field(
        0.0, ge=0, lt=1, description="Largest share of tokens repeated in the second view (ESimCSE); 0 off."
    )
    delete: float = Field(
        0.0, ge=0, lt=1, description="Largest share of tokens left out of each view; 0 off."
    )
    drop_heads: float = Field(
        0.0, ge=0, lt=1, description="Share of attention heads off in each view (DropHead); 0 off."
    )
    max_sentences: int = Field(
        100_000, ge=2, description="At most this many sentences (or pairs), a seeded sample."
    )
    corpus: str | None = Field(
        None, description="Sentence file to prime on; null: the sentences of the pairs."
    )
    drop_last: bool = Field(True, description="Leave out the last, smaller batch of an epoch.")

    _named = field_validator("corpus", mode="before")(never_empty)


class DistillSettings(FitSettings):
    """One half-cycle's student."""

    objective: str = Field(
        "soft_bce", description="Loss between the student's outputs and the silver labels."
    )
    start: Literal["base", "primed", "previous"] = Field(
        "base", description="Initial weights: the PLM's, the primed bi-encoder's, or the current teacher's."
    )
    head: Literal["classifier", "segments"] = Field(
        "classifier",
        description="Of a cross-encoder: a new classifier, or the cosine of its segments (docs/objectives.md).",
    )
    both_orders: bool | None = Field(
        None,
        description="Train on (a, b) and (b, a); null: if the task's pairs mean the same in both orders.",
    )
    trials: int = Field(
        1, ge=1, description="Seeds that are tried for a share of the steps; the best one is trained on."
    )
    trial_share: float = Field(0.2, gt=0, lt=1, description="Share of the steps that each trial runs.")

    @field_validator("objective")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        value = value.replace("-", "_")
        if value in COMPARING and info.data.get("batch_size") == 1:
            raise ValueError(
                "it compares the pairs of a step, and batch_size=1 gives it one alone: take 2 or more"
            )
        if value not in OBJECTIVES:
            hint = did_you_mean(value, list(OBJECTIVES))
            raise ValueError(f"no such objective.{hint} There are: {', '.join(OBJECTIVES)}")
        return value


class Distill(Frozen):
    """The two half-cycles, with the values of Trans-Encoder's Table 16."""

    cross: DistillSettings = DistillSettings(warmup=0.1)
    bi: DistillSettings = DistillSettings(
        objective="cosine_mse", start="primed", both_orders=False,
        epochs=10, batch_size=128, learning_rate=5e-5, max_length=32,
    )  # fmt: skip


class LabelSettings(Frozen):
    """How teachers' scores become silver labels."""

    combine: Literal["mean", "rank-mean", "dev-weighted"] = Field(
        "mean", description="How several teachers' scores are combined."
    )
    transform: Literal["none", "rank", "match"] = Field(
        "none",
        description="rank: ranks scaled to [0, 1]; match: a cross-encoder's order with the bi-encoder's values.",
    )
    mix: float = Field(
        0.0, ge=0, lt=1, description="Share of the bi-encoder's own score in a cross-encoder's labels."
    )
    both_orders: bool = Field(
        False,
        description="A cross-encoder labels with its mean over both orders; never for an asymmetric task.",
    )
    clip: bool = Field(
        True, description="Clip labels to [0, 1]; false only to compare with the published code."
    )
    shard: int = Field(2_000, ge=1, description="Sentences or pairs scored between two looks at signals.")


class GoldSettings(Frozen):
    """Pairs that people labelled, and what is made of them (Augmented SBERT, Thakur et al. 2021)."""

    source: str | None = Field(
        None, description="File, or name as stsb-train; `:1000` takes a seeded sample."
    )
    score_range: tuple[float, float] | None = Field(
        None, description="Scores of a file that become 0 and 1; null: they are so already."
    )
    scenario: Literal["none", "gold", "few", "domain"] = Field(
        "none",
        description="What the recipe does: copy labels, label more pairs, or label those of another domain.",
    )
    labels: Literal["auto", "graded", "binary"] = Field("auto", description="auto: binary if all are 0 or 1.")
    augment: tuple[str, ...] = Field(
        (), description="Augmenters that rewrite gold pairs: name:option=value,..."
    )
    copies: int = Field(1, ge=1, le=100, description="Rewritten copies of each pair, by each augmenter.")
    weight: float = Field(
        1.0, ge=0, le=100, description="How often a gold pair is seen in an epoch; 0: never."
    )
    silver_weight: float = Field(
        1.0, gt=0, le=100, description="How often a silver pair is seen in an epoch."
    )
    silver: Literal["auto", "soft", "hard"] = Field(
        "auto", description="hard: silver labels become 0 or 1; auto: hard for binary gold."
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="hard: from this score on a silver label is 1.")
    students: Literal["bi", "cross", "both"] = Field(
        "bi", description="What is trained on gold and silver pairs together."
    )
    teacher: DistillSettings = Field(
        DistillSettings(epochs=4, batch_size=16, warmup=0.1), description="The cross-encoder trained on gold."
    )

    _tuples = field_validator("augment", "score_range", mode="before")(listed)
    _named = field_validator("source", mode="before")(never_empty)


class Settings(Frozen):
    """Everything that defines a run."""

    plm: tuple[str, ...] = Field(
        min_length=1, description="Starts: hub name, directory or embedded name; one student each."
    )
    task: str | None = Field(None, description="The task whose pairs are trained on and whose tests are run.")
    pairs: str | None = Field(None, description="File of given pairs, instead of a task's.")
    corpus: str | tuple[str, ...] | None = Field(
        None, description="File of sentences that pairs are mined from, or a list of them; null: a task's."
    )
    dev: str | None = Field(
        None, description="Task or scored file whose development pairs select; null: the task's own."
    )
    evaluate: tuple[str, ...] = Field(
        (), description="Tasks or scored files that models are tested on; none: the task's own."
    )
    # The defaults of all settings are the values of this recipe.
    recipe: str = Field("self", description="Named settings shipped with transenc.")
    cycles: int = Field(3, ge=0, le=100, description="Rounds of bi -> cross -> bi; 0 only after gold labels.")
    select: Literal["auto", "dev", "last", "agreement"] = Field(
        "auto",
        description="Keep the best on labelled development data, the last cycle, or choose without labels by "
        "agreement; auto: by the labelled data if there are some, else by agreement, of too few pairs the last.",
    )
    held_out: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the pairs that --select agreement judges on and never trains on.",
    )
    symmetric: bool | None = Field(
        None, description="Whether (a, b) and (b, a) mean the same; null: as the task says, else yes."
    )
    inductive: bool = Field(False, description="Leave every evaluation pair out of the training pool.")
    skip_bad: str | None = Field(
        None, description="Bad rows of the user's files to skip: 5, or 2%; null: none."
    )
    columns: str | None = Field(
        None,
        description="Other names of the columns of the user's pairs: both sides[,score]; null: the usual.",
    )
    sampler: str = Field("bm25:k=3", description="How pairs are mined from sentences: name:option=value,...")
    bi_sampler: str | None = Field(
        None, description="How the pairs that bi-encoders learn from are mined; null: those of the sampler."
    )
    remine: bool = Field(False, description="Mine pairs afresh in each cycle, with the better bi-encoder.")
    max_pairs: int | None = Field(None, ge=1, description="Train on a seeded sample of this many pairs.")
    pooling: Literal["auto", "cls", "mean"] = Field("auto", description="auto: the start's own, else cls.")
    seed: int = Field(1, ge=0, description="Seed of everything random.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the hardware is fast at it."
    )
    prime: PrimeSettings = PrimeSettings()
    label: LabelSettings = LabelSettings()
    distill: Distill = Distill()
    gold: GoldSettings = GoldSettings()

    _tuples = field_validator("plm", "evaluate", mode="before")(listed)
    _named = field_validator("task", "pairs", "corpus", "dev", "bi_sampler", mode="before")(never_empty)

    @field_validator("corpus", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        names = () if value is None else listed(value)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("name a file of sentences, or a list of them")
        # A file alone stands as such in run.yaml, in whichever way it was given.
        return names if len(names) > 1 else names[0] if names else None

    @property
    def corpora(self) -> tuple[str, ...]:
        """Return the files of sentences that pairs are mined from."""
        return listed(self.corpus) or ()


# What a priming method changes of the defaults, as published.
_MIRROR: dict[str, Any] = {  # Liu et al. 2021
    "temperature": 0.04, "batch_size": 200, "learning_rate": 2e-5, "weight_decay": 0.01, "schedule": "constant",
    "max_length": 50, "head": False, "span_mask": 5, "max_sentences": 10_000,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "simcse": {},  # Gao et al. 2021: the defaults
    "esimcse": {"repeat": 0.32},  # Wu et al. 2022, section 3.1, without the queue of section 3.2
    "mirror": _MIRROR,
    "mirror-drophead": _MIRROR | {"dropout": 0.0, "drop_heads": 0.2},
    # Ours, after Su et al. 2021: the encoder learns the cosines of its own whitened mean word embeddings.
    "whitening": {"dropout": 0.0, "head": False, "delete": 0.6},
    # Henderson et al. 2017; rate, decay and scale (1/temperature) are the defaults of sentence-transformers.
    "pairs": {"head": False, "learning_rate": 2e-5, "weight_decay": 0.01},
}

BY_TEXT: dict[str, Any] = {  # what leaves every length to the text (lengths.py)
    "prime": {"max_length": None},
    "distill": {"cross": {"max_length": None}, "bi": {"max_length": None}},
    "gold": {"teacher": {"max_length": None}},
}
