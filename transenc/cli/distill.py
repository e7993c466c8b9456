"""`transenc distill`: train one student on scored pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transenc.cli import options


def distill(
    pairs: Annotated[Path, typer.Option(help="File with sentence1, sentence2, score.")],
    family: Annotated[str, typer.Option(help="Family of the student: bi or cross.")],
    start: Annotated[str, typer.Option(help="Initial weights: a PLM or a model, as in --plm.")],
    out: Annotated[Path, typer.Option(help="Directory for the model; must not exist.")],
    dev: Annotated[Path | None, typer.Option(help="Scored pairs that select the best checkpoint.")] = None,
    score_range: options.ScoreRange = None,
    columns: options.Columns = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="(a, b) and (b, a) mean different things.")
    ] = False,
    pooling: options.PoolingSetting = None,
    set_: options.Set = None,
    skip_bad: options.SkipBad = None,
    seed: options.SeedSetting = None,
    device: options.Device = "auto",
    precision: options.PrecisionSetting = None,
    json_: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """Distil the scores of pairs, silver or gold, into a bi-encoder or a cross-encoder."""
    from transenc import config, registry
    from transenc.cli.console import Reporter, log_to_stderr, note, out_json
    from transenc.cli.console import out as show
    from transenc.errors import ConfigError
    from transenc.gold import check_judge, check_varied
    from transenc.interrupt import stop_on_signals
    from transenc.pairs import shared
    from transenc.readers import SkipBad, column_names, read_pairs

    registry.find(registry.FAMILIES, family)
    if family not in config.Distill.model_fields:
        raise ConfigError(
            f"Family '{family}' only scores; distill trains {' and '.join(config.Distill.model_fields)}."
        )
    changed = config.from_assignments(set_ or [])
    given = options.given(pooling=pooling, seed=seed, precision=precision)
    config.check_once(given, changed)
    settings = config.build(config.merge(config.BY_TEXT, {"plm": [start]}, given, changed))
    used = [f"distill.{family}", "pooling", "seed", "precision"]
    config.check_used(changed, used, "distill", {f"distill.{family}.start": "--start"})
    if asymmetric and getattr(settings.distill, family).both_orders:
        raise ConfigError(
            f"--asymmetric says that (a, b) and (b, a) differ, and distill.{family}.both_orders=true teaches them "
            "one label: leave one of the two out."
        )
    named = "head" in changed.get("distill", {}).get("cross", {})
    skip = SkipBad.parse(skip_bad)
    names = column_names(columns, scored=True)
    silver = read_pairs(pairs, scores="required", score_range=score_range, skip_bad=skip, columns=names)
    check_varied(silver, f"{pairs}: all {len(silver):,} labels")
    gold = None
    if dev is not None:
        gold = read_pairs(dev, scores="required", score_range=score_range, skip_bad=skip, columns=names)
        check_judge(gold, "spearman", str(dev), "Give another --dev, or none: the last step is kept then.")
        if both := shared(silver, gold):
            note(
                f"{both:,} of the {len(gold):,} pairs of {dev} are among the pairs that are trained on: where these "
                "have people's scores too, selection is too favourable"
            )
    log_to_stderr()
    with stop_on_signals() as stop:
        from transenc.single_stages import distill_to

        reporter = Reporter(1)
        with reporter.showing():
            fitted = distill_to(
                settings, family, silver, gold, out,
                symmetric=not asymmetric, keep_head=not named, device=device, offline=offline, stop=stop,
                report=reporter.progress,
            )  # fmt: skip
    loss, dev_score, step = fitted.losses[-1][1], fitted.best, fitted.best_step
    if json_:
        objective = getattr(settings.distill, family).objective
        out_json(
            {
                "path": str(out), "family": family, "start": start, "objective": objective, "seed": settings.seed,
                "pairs": len(silver), "loss": loss, "dev": dev_score, "step": None if dev_score is None else step,
            }
        )  # fmt: skip
        return
    best = "" if dev_score is None else f", best dev Spearman {100 * dev_score:.2f} at step {step}"
    show(f"{out}: {family}-encoder from {len(silver):,} pairs, last mean loss {loss:.4f}{best}")
    show(f"Next: transenc evaluate demo --model {out}")
