"""How `--help` looks: a word for each option's value, and examples at the end."""

from __future__ import annotations

import os
from typing import Any

from typer.core import TyperCommand

from transenc.errors import ConfigError

# What stands for the value of an option; where nothing is said, its own name does (--task TASK).
VALUES = {
    "plm": "MODEL", "model": "MODEL", "teacher": "MODEL", "encoder": "MODEL", "start": "MODEL",
    "pairs": "FILE", "corpus": "FILE", "gold": "FILE", "config": "FILE",
    "dev": "TASK_OR_FILE", "evaluate": "TASK_OR_FILE",
    "out": "PATH", "run": "DIR", "data": "DIR",
    "recipe": "NAME", "sampler": "NAME", "augment": "NAME", "columns": "NAMES",
    "cycles": "N", "max_pairs": "N", "seed": "N", "seeds": "N[,N...]", "seed_optimisation": "N", "show": "N",
    "shard": "N", "opset": "N", "skip_bad": "N[%]", "fail_under": "X", "atol": "X", "max_drop": "X",
    "gold_range": "LOW HIGH", "score_range": "LOW HIGH",
}  # fmt: skip

# An empty one would be the current directory, or as if it had not been given; of the others it is told where they are
# read.
NEVER_EMPTY = ("FILE", "TASK_OR_FILE", "TASK", "PATH", "DIR", "NAME")

EXAMPLES = {
    "cycle": """\
transenc cycle --plm mini --task demo                        # a first look, in minutes
transenc cycle --plm roberta-base --corpus my-sentences.txt  # no labels: pairs are mined
transenc cycle --plm minilm --pairs my-pairs.tsv --dev my-scored-pairs.tsv
transenc cycle --plm minilm --recipe augsbert-few --gold my-scored-pairs.tsv
""",
    "prime": """\
transenc prime --plm roberta-base --corpus my-sentences.txt --out my-primed
transenc prime --plm roberta-base --pairs questions-and-answers.tsv --out my-primed
""",
    "label": """\
transenc label --pairs my-pairs.tsv --teacher my-cross --out silver.tsv
transenc label --corpus my-sentences.txt --sampler bm25:k=3 --teacher minilm --out silver.tsv
transenc label --augment noise --corpus my-sentences.txt --show 3
""",
    "distill": """\
transenc distill --pairs silver.tsv --family bi --start minilm --out my-bi
transenc distill --pairs gold.tsv --score-range 0 5 --family cross --start minilm --out my-cross
""",
    "evaluate": """\
transenc evaluate demo --model minilm
transenc evaluate my-scored-pairs.tsv --score-range 0 5 --model minilm --model my-bi
transenc evaluate my-scored-pairs.tsv --model my-engine:int8 --fail-under 0.8
""",
    "onnx": """\
transenc export onnx --model my-bi --precision fp32,int8 --out my-engine
transenc export onnx --run runs/minilm-demo
""",
    "tensorrt": """\
transenc export tensorrt --model my-engine --precision fp16 --out my-engine-trt
""",
}


class Command(TyperCommand):
    """A command whose help shows VALUES for the types of Python, and the examples of its name."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        for option in self.params:
            flag = getattr(option, "is_flag", False)
            if option.metavar is None and option.name is not None and not flag:
                option.metavar = VALUES.get(option.name.rstrip("_"), option.name.upper())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; raise ConfigError for an empty file, directory, task or name, as of an unset variable."""
        metavars = {flag: option.metavar for option in self.params for flag in option.opts}
        given = [*zip(args, args[1:], strict=False), *(tuple(a.split("=", 1)) for a in args if "=" in a)]
        for flag, value in given:
            if not value and metavars.get(flag) in NEVER_EMPTY:
                raise ConfigError(
                    f"{flag} is empty: name one, or leave it out. Is a variable of the shell unset?"
                )
        if "--debug" in args:  # an option of all commands, which is thought of after one has failed
            os.environ["TRANSENC_DEBUG"] = "1"
            args = [argument for argument in args if argument != "--debug"]
        left = super().parse_args(ctx, args)
        for one in self.get_params(ctx):
            if one.param_type_name == "argument" and ctx.params.get(one.name or "") == "":
                raise ConfigError(f"{one.metavar} is empty: name one. Is a variable of the shell unset?")
        return left

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples line by line, which would be filled as a paragraph otherwise."""
        if lines := EXAMPLES.get(self.name or ""):
            with formatter.section("Examples"):
                for line in lines.splitlines():
                    formatter.write(f"  {line}\n")
