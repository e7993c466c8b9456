"""`transenc cycle`: the whole method in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transenc.cli import options
from transenc.errors import ConfigError

if TYPE_CHECKING:
    from transenc.config import Settings


def cycle(
    plm: Annotated[
        list[str] | None,
        typer.Option(
            help="Start: a hub name, a directory, or an embedded name such as minilm; repeat for several."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task (sts, mrpc, demo, ...) whose pairs are used and whose tests are run."),
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="File of pairs to learn from, as they are.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option(help="File of sentences to mine pairs from; repeat for several.")
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="Task or scored file that selects; default: the task's own.")
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(help="Task or scored file to test on, instead of the task's own; repeat for several."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="best (default), self or mutual; with --gold augsbert-gold, augsbert-few or augsbert-domain."
        ),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            help="Labelled pairs for the augsbert recipes: FILE or stsb-train; :1000 takes a sample."
        ),
    ] = None,
    gold_range: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest score of the gold file.")
    ] = None,
    augment: Annotated[
        list[str] | None, typer.Option(help="How gold pairs are rewritten: NAME[:option=value,...]; repeat.")
    ] = None,
    cycles: Annotated[
        int | None, typer.Option(min=0, help="Rounds of bi -> cross -> bi; 0 only after gold labels.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory; default: runs/<plm>-<task>.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: options.Set = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="dev: the best on labelled development data, the default where there are some; agreement: chosen "
            "without labels, the default elsewhere; last: the last cycle."
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="How pairs are mined: NAME[:option=value,...], as bm25:k=3.")
    ] = None,
    remine: Annotated[
        bool | None, typer.Option("--remine", help="Mine afresh in each cycle, with the better bi-encoder.")
    ] = None,
    max_pairs: Annotated[
        int | None, typer.Option(min=1, help="Use a seeded sample of this many pairs.")
    ] = None,
    inductive: Annotated[
        bool | None,
        typer.Option("--inductive/--transductive", help="Leave evaluation pairs out of the pool."),
    ] = None,
    columns: options.Columns = None,
    skip_bad: options.SkipBad = None,
    precision: options.PrecisionSetting = None,
    seed: options.SeedSetting = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Run 5 seeds (5), or these (1,2,3), each in its own directory, and compare them."),
    ] = None,
    seed_optimisation: Annotated[
        int | None,
        typer.Option(min=1, help="Try this many seeds of each cross-encoder briefly, train the best one on."),
    ] = None,
    device: options.Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(help="Devices such as cuda:0,cuda:1 on which students are trained side by side."),
    ] = None,
    data: options.Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    offline: options.Offline = False,
    json_: options.Json = False,
) -> None:
    """Train a bi-encoder and a cross-encoder that teach each other, from a PLM and unlabelled text."""
    flags = {
        "plm": plm or None,
        "task": task,
        "pairs": str(pairs) if pairs else None,
        "corpus": [str(file) for file in corpus] if corpus else None,
        "dev": dev,
        "evaluate": evaluate or None,
        "recipe": recipe,
        "cycles": cycles,
        "select": select,
        "sampler": sampler,
        "remine": remine,
        "max_pairs": max_pairs,
        "inductive": inductive,
        "columns": columns,
        "skip_bad": skip_bad,
        "precision": precision,
        "seed": seed,
        "distill": {"cross": {"trials": seed_optimisation}} if seed_optimisation else None,
        "gold": options.given(source=gold, score_range=gold_range, augment=augment or None) or None,
    }
    if devices and device != "auto":
        raise ConfigError("Give either --device (one) or --devices (several), not both.")
    settings, by_hand = _settings(
        options.given(**flags), config, set_ or [], trials=seed_optimisation, offline=offline
    )
    if seeds is not None and "seed" in by_hand:
        raise ConfigError("Give either --seed (one run) or --seeds (several), not both.")

    from transenc.cli.console import Reporter, log_to_stderr
    from transenc.interrupt import stop_on_signals
    from transenc.session import Session

    log_to_stderr()
    places = [name.strip() for name in devices.split(",") if name.strip()] if devices else []
    where: dict[str, Any] = {"data": data, "device": device, "devices": places, "offline": offline}
    if seeds is not None:
        from transenc.cli.repeats import run_seeds

        run_seeds(settings, seeds, parent=run, where=where, dry_run=dry_run, as_json=json_)
        return
    with stop_on_signals() as stop:
        session = Session.open(settings, root=run, stop=stop, dry_run=dry_run, **where)
        from transenc.cli.results import show_outcome, show_plan

        if dry_run:
            show_plan(session, as_json=json_)
            return
        reporter = Reporter(len(session.stages))
        with reporter.showing():
            outcome = session.run(on_stage=reporter.stage, report=reporter.progress)
        show_outcome(session, outcome, as_json=json_)


def _settings(
    given: dict[str, Any], file: Path | None, assigned: list[str], *, trials: int | None, offline: bool
) -> tuple[Settings, dict[str, Any]]:
    """Return the settings of a run, checked, and those among them that options and --set gave.

    given: what options gave; file: of --config; assigned: of --set. trials: of --seed-optimisation.
    """
    from transenc import config, registry
    from transenc.cli.console import note
    from transenc.inputs import check_sampler, settings_for

    read = config.load_file(file) if file else {}
    changed = config.from_assignments(assigned)
    config.check_once(given, changed)
    by_hand = config.merge(given, changed)
    user = config.merge(read, by_hand)
    if not user.get("plm"):
        embedded = ", ".join(registry.names(registry.PLMS))
        raise ConfigError(f"Name a start: --plm NAME (a hub name, a directory, or: {embedded}).")
    sources = [user.get(key) for key in ("task", "pairs", "corpus")]
    assumed = not any([*sources, user.get("gold", {}).get("source")])
    if assumed:
        user["task"] = "sts"
    settings = settings_for(user, offline=offline)
    # The cross-encoder that learns gold is one, too.
    if trials and settings.gold.scenario != "none":
        teacher = {"gold": {"teacher": {"trials": trials}}}
        config.check_once(teacher, changed)
        settings = settings_for(config.merge(user, teacher), offline=offline)
    check_sampler(settings, by_hand)
    if assumed and settings.gold.scenario == "none":  # others need labels, which an error asks for
        note("None of --task, --pairs, --corpus and --gold is given: task sts, as published.")
    return settings, by_hand
