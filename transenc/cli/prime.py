"""`transenc prime`: contrastive priming of a PLM on plain sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transenc.cli import options


def prime(
    plm: Annotated[str, typer.Option(help="Start: a hub name, a directory or an embedded name.")],
    corpus: Annotated[list[Path], typer.Option(help="File of sentences; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Directory for the bi-encoder; must not exist.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="simcse, esimcse, mirror, mirror-drophead or whitening; else the start's own, else simcse."
        ),
    ] = None,
    pooling: options.PoolingSetting = None,
    set_: options.Set = None,
    skip_bad: options.SkipBad = None,
    seed: options.SeedSetting = None,
    device: options.Device = "auto",
    precision: options.PrecisionSetting = None,
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Prime a bi-encoder: two views of each sentence are pulled together, other sentences pushed away."""
    from transenc import config
    from transenc.cli.console import Reporter, log_to_stderr, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ConfigError
    from transenc.interrupt import stop_on_signals
    from transenc.models.intake import own_settings
    from transenc.readers import SkipBad, read_sentences
    from transenc.registry import did_you_mean

    changed = config.from_assignments(options.setting_list(set_))
    chosen = changed.get("prime", {}).get("method", method)
    if chosen is not None and str(chosen) not in config.METHODS:
        raise ConfigError(
            f"No priming method '{chosen}'.{did_you_mean(str(chosen), list(config.METHODS))} "
            f"There are: {', '.join(config.METHODS)}."
        )
    given = options.given(pooling=pooling, seed=seed, precision=precision)
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
    sentences = read_sentences(corpus, skip_bad=SkipBad.parse(skip_bad))
    log_to_stderr()
    with stop_on_signals() as stop:
        from transenc.single_stages import prime_to

        reporter = Reporter(1)
        with reporter.showing():
            fitted = prime_to(
                settings, sentences, out, device=device, offline=offline, stop=stop, report=reporter.progress
            )
    how, loss = settings.prime.method, fitted.losses[-1][1]
    read = min(len(set(sentences)), settings.prime.max_sentences)
    if json_:
        out_json(
            {
                "path": str(out), "family": "bi", "start": plm, "method": how, "seed": settings.seed,
                "sentences": read, "loss": loss,
            }
        )  # fmt: skip
        return
    show(f"{out}: primed on {read:,} sentences ({how}), last mean loss {loss:.4f}")
    show(f"Next: transenc evaluate demo --model {out}")
