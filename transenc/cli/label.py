"""`transenc label`: score pairs with one or several teachers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from transenc.cli import options


def label(
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Scorer: a directory, a hub name, an exported engine, minilm; repeat for several."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write: .tsv, .jsonl or .parquet.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="File of pairs.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="File of sentences to mine pairs from; repeat.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="How pairs are mined: NAME[:option=value,...]; default: bm25.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Model that embeds sentences for semantic samplers; default: the first teacher."),
    ] = None,
    max_pairs: Annotated[
        int | None, typer.Option(min=1, help="Keep a seeded sample of the mined pairs.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="Scored pairs: never mined again, and the measure of kde.")
    ] = None,
    gold_range: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest score of the gold file.")
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="Rewrite sentences: NAME[:option=value,...]; with --gold FILE its labels are copied."
        ),
    ] = None,
    show: Annotated[
        int | None, typer.Option(min=1, help="With --augment and no --out: how many to look at; default: 10.")
    ] = None,
    combine: Annotated[str, typer.Option(help="mean or rank-mean of several teachers.")] = "mean",
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="A cross-encoder scores the mean of (a, b) and (b, a).")
    ] = False,
    transform: Annotated[str, typer.Option(help="none, or rank: ranks scaled to [0, 1] as labels.")] = "none",
    shard: Annotated[int, typer.Option(min=1, help="Sentences or pairs scored at a time.")] = 2_000,
    columns: options.Columns = None,
    skip_bad: options.SkipBad = None,
    seed: options.Seed = 1,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Label given or mined pairs with the scores of one or several models, mapped to [0, 1]."""
    from transenc.cli.console import Reporter, log_to_stderr, note, out_json
    from transenc.cli.console import out as say
    from transenc.errors import ConfigError
    from transenc.interrupt import stop_on_signals
    from transenc.readers import SkipBad, column_names, read_pairs, read_sentences
    from transenc.single_label import Scorers, check_label, label_to, mine_pairs

    if gold_range is not None and gold is None:
        raise ConfigError("--gold-range is the scale of --gold: give --gold FILE, or leave it out.")
    if columns is not None and pairs is None and gold is None:
        raise ConfigError("--columns names those of --pairs or --gold: give one of them, or leave it out.")
    names = column_names(columns, scored=gold is not None, file=pairs)
    if augment:
        scoring = {
            "--teacher": teacher, "--sampler": sampler, "--encoder": encoder, "--max-pairs": max_pairs,
            "--combine": combine != "mean", "--both-orders": both_orders, "--transform": transform != "none",
            "--shard": shard != 2_000,
        }  # fmt: skip
        about = "is about pairs that a teacher scores; --augment rewrites sentences and asks none"
        _refuse(scoring, f"{about}: leave one of them out.")
        from transenc.cli.augmenting import augment_file

        augment_file(
            augment, gold=gold, gold_range=gold_range, pairs=pairs, corpus=list(corpus or []), out=out,
            show=show or 10, columns=names, skip_bad=skip_bad, seed=seed, device=device, precision=precision,
            offline=offline, as_json=json_,
        )  # fmt: skip
        return

    looked = "is how many rewritten sentences to look at: give --augment NAME, or leave it out."
    _refuse({"--show": show}, looked)
    if not teacher or out is None:
        raise ConfigError("Give --teacher MODEL and --out FILE, or look at --augment NAME.")
    if (pairs is None) == (not corpus):
        raise ConfigError("Give either --pairs FILE, or --corpus FILE with a --sampler.")
    if pairs is not None:
        mining = {"--sampler": sampler, "--encoder": encoder, "--max-pairs": max_pairs, "--gold": gold}
        _refuse(mining, "is about mining pairs of a --corpus; those of --pairs are all labelled.")
    sampler = sampler or "bm25"
    mined_by = None if pairs is not None else sampler
    check_label(out, combine, transform)

    log_to_stderr()
    skip = SkipBad.parse(skip_bad)
    known = None
    if gold is not None:
        from transenc.gold import check_labels  # it needs all of the settings, which take a while to import

        known = read_pairs(gold, scores="required", score_range=gold_range, skip_bad=skip, columns=names)
        check_labels(known, str(gold))
    scorers = Scorers(device=device, precision=precision, offline=offline)
    if pairs is not None:
        found = read_pairs(pairs, scores="ignored", skip_bad=skip, columns=names)
    else:
        sentences = read_sentences(list(corpus or []), skip_bad=skip)
        note(f"mining pairs of {len(sentences):,} different sentences by {sampler}")
        found = mine_pairs(
            sentences, sampler, scorers,
            teacher=teacher[0], encoder=encoder, gold=known, max_pairs=max_pairs, seed=seed,
        )  # fmt: skip
        note(f"{len(found):,} pairs mined by {sampler}")

    with stop_on_signals() as stop:
        reporter = Reporter(len(teacher))
        with reporter.showing():
            made = label_to(
                teacher, found, out,
                combine=combine, both_orders=both_orders, transform=transform,
                sampler=mined_by, gold=known,
                shard=shard, seed=seed, scorers=scorers, stop=stop, report=reporter.progress,
            )  # fmt: skip
    labels, mean = made.labels, float(made.labels.values.mean())
    count, texts = len(made.pairs), len(made.pairs.sentences)
    if made.rule is not None:
        from transenc.cli.gold import rule_line

        note(rule_line(made.rule))
    if json_:
        out_json(
            {
                "path": str(out), "teachers": teacher, "combine": combine, "both_orders": both_orders,
                "transform": transform, "sampler": mined_by, "seed": seed, "pairs": count, "sentences": texts,
                "mean": mean, "clipped": labels.clipped, "rule": labels.rule, "kept": made.rule,
            }
        )  # fmt: skip
        return
    say(
        f"{out}: {count:,} pairs over {texts:,} sentences, "
        f"mean {mean:.3f}, {labels.clipped:,} scores changed by '{labels.rule}'"
    )
    say(f"Next: transenc distill --pairs {out} --family cross --start PLM --out DIR")


def _refuse(options_: Mapping[str, object], why: str) -> None:
    """Raise ConfigError for the first of these options that was given."""
    from transenc.errors import ConfigError

    if given := [name for name, value in options_.items() if value not in (None, False, [])]:
        raise ConfigError(f"{given[0]} {why}")
