"""Parse the commands train, judge and pack; turn an expected failure into one line and an exit code."""

import argparse
import json
import logging
import os
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from transenc.errors import ConfigError, TransencError

from .settings import Settings


def parser() -> argparse.ArgumentParser:
    """Describe the three commands; every field of Settings is an option of `train`."""
    top = argparse.ArgumentParser(prog="python -m examples.pretrain_mini", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="make the vocabulary and pretrain; the same command resumes")
    train.add_argument("corpus", nargs="+", type=Path, help=".txt or .txt.gz, one sentence a line")
    train.add_argument("--run", type=Path, required=True, help="directory of vocabulary, checkpoints and log")
    train.add_argument("--vocabulary", type=int, default=8192, help="number of word pieces (8192)")
    train.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    train.add_argument("--threads", type=int, help="CPU threads (all)")
    train.add_argument(
        "--compile", action="store_true", help="through torch.compile: faster, needs a C++ compiler"
    )
    train.add_argument(
        "--checkpoint-seconds", type=float, default=300.0, help="time between checkpoints (300)"
    )
    train.add_argument("--evaluate-every", type=int, default=500, help="steps between log lines (500)")
    train.add_argument("--until", type=int, help="stop with a checkpoint at this step, before the end")
    for field in fields(Settings):
        assert field.default is not MISSING
        option = "--" + field.name.replace("_", "-")
        train.add_argument(option, type=type(field.default), default=field.default, help=f"({field.default})")

    pack = commands.add_parser("pack", help="write the newest checkpoint as a transformers model, fp16")
    pack.add_argument("--run", type=Path, required=True)
    pack.add_argument("--out", type=Path, required=True, help="directory to fill")

    pack.add_argument("--random-weights", action="store_true", help="same shape, untrained: the control")

    judge = commands.add_parser("judge", help="held-out and unigram loss, fill-mask, as JSON lines")
    judge.add_argument("model", type=Path, help="a packed model directory")
    judge.add_argument("--corpus", nargs="+", type=Path, required=True, help="the corpus it was trained on")
    judge.add_argument("--threads", type=int)
    return top


def run_command(arguments: argparse.Namespace) -> None:
    """Call the library function behind a command."""
    # torch and transformers take seconds to import; --help must not wait for them.
    import torch

    if getattr(arguments, "threads", None):
        torch.set_num_threads(arguments.threads)
    if arguments.command == "train":
        from .train import pretrain

        if arguments.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("This torch sees no CUDA device. Use --device cpu.")
        settings = Settings(**{field.name: getattr(arguments, field.name) for field in fields(Settings)})
        pretrain(
            arguments.corpus,
            arguments.run,
            settings,
            vocabulary_size=arguments.vocabulary,
            device=arguments.device,
            compiled=arguments.compile,
            until=arguments.until,
            checkpoint_seconds=arguments.checkpoint_seconds,
            evaluate_every=arguments.evaluate_every,
            on_log=show,
        )
    elif arguments.command == "pack":
        from .pack import pack

        show(pack(arguments.run, arguments.out, random_weights=arguments.random_weights))
    else:
        from .judge import judge

        judge(arguments.model, arguments.corpus, on_result=show)


def show(line: object) -> None:
    """Write one JSON line to stdout."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 (settings), 3 (data) or another of transenc.errors."""
    arguments = parser().parse_args(argv)
    # The rust tokenizer would start as many threads as there are cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        run_command(arguments)
    except TransencError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
