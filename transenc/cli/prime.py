"""`transenc prime`: contrastive priming of a PLM on plain sentences, or on pairs that belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transenc.cli import options


def prime(
    plm: Annotated[str, typer.Option(help="Start: a hub name, a directory or an embedded name.")],
    out: Annotated[Path, typer.Option(help="Directory for the bi-encoder; must not exist.")],
    corpus: Annotated[list[Path] | None, typer.Option(help="File of sentences; repeat for several.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="In place of --corpus: pairs that belong together, as a title and its text."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="simcse, esimcse, mirror, mirror-drophead or whitening; else the start's own, else simcse. "
            "Of --pairs it is pairs."
        ),
    ] = None,
    pooling: options.PoolingSetting = None,
    set_: options.Set = None,
    columns: options.Columns = None,
    skip_bad: options.SkipBad = None,
    seed: options.SeedSetting = None,
    device: options.Device = "auto",
    precision: options.PrecisionSetting = None,
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Prime a bi-encoder: pull two views of a sentence, or both sides of a pair, together, and push others away."""
    from transenc import config
    from transenc.cli.console import Reporter, log_to_stderr, note, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ConfigError
    from transenc.interrupt import stop_on_signals
    from transenc.models.intake import own_settings
    from transenc.pairs import Pairs
    from transenc.readers import SkipBad, column_names, has_scores, read_pairs, read_sentences
    from transenc.registry import did_you_mean

    changed = config.from_assignments(set_ or [])
    chosen = changed.get("prime", {}).get("method", method)
    if chosen is not None and str(chosen) not in config.METHODS:
        raise ConfigError(
            f"No priming method '{chosen}'.{did_you_mean(str(chosen), list(config.METHODS))} "
            f"There are: {', '.join(config.METHODS)}."
        )
    if bool(corpus) == (pairs is not None):
        raise ConfigError(
            "Give either --corpus FILE (sentences) or --pairs FILE (pairs that belong together)."
        )
    if columns and pairs is None:
        raise ConfigError("--columns names those of a file of pairs: give --pairs FILE, or leave it out.")
    given = options.given(pooling=pooling, seed=seed, precision=precision)
    method = method or ("pairs" if pairs is not None and chosen is None else None)
    given |= {"prime": {"method": method}} if method else {}
    config.check_once(given, changed)
    values = config.merge(
        config.BY_TEXT,
        {"plm": [plm], "prime": {"method": "simcse"}},
        {"prime": own_settings([plm]).get("prime", {})},
        given,
        changed,
    )
    settings = config.build(values)
    config.check_used(
        changed, ["prime", "pooling", "seed", "precision"], "prime", {"prime.corpus": "--corpus"}
    )
    # Before a file is read as the other.
    config.check_primed_on(settings.prime.method, pairs=pairs is not None)
    skip = SkipBad.parse(skip_bad)
    texts: Pairs | list[str]
    if pairs is not None:
        names = column_names(columns, scored=False, file=pairs)
        texts = read_pairs(pairs, scores="ignored", skip_bad=skip, columns=names)
        if has_scores(pairs, names):
            note(f"{pairs} has scores, which are not read: every pair is taken as one that belongs together")
    else:
        texts = read_sentences(corpus or [], skip_bad=skip)
    log_to_stderr()
    with stop_on_signals() as stop:
        from transenc.single_stages import prime_to

        reporter = Reporter(1)
        with reporter.showing():
            fitted = prime_to(
                settings, texts, out, device=device, offline=offline, stop=stop, report=reporter.progress
            )
    how, loss, most = settings.prime.method, fitted.losses[-1][1], settings.prime.max_sentences
    what = "pairs" if isinstance(texts, Pairs) else "sentences"
    read = min(len(texts.unique()) if isinstance(texts, Pairs) else len(set(texts)), most)
    if json_:
        out_json(
            {
                "path": str(out), "family": "bi", "start": plm, "method": how, "seed": settings.seed,
                what: read, "loss": loss,
            }
        )  # fmt: skip
        return
    told = f"{read:,} {what}" + ("" if how == "pairs" else f" ({how})")
    show(f"{out}: primed on {told}, last mean loss {loss:.4f}")
    show(f"Next: transenc evaluate demo --model {out}")
