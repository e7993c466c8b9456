"""Show what gold labels became: the plan of their stages, and the labels of gold, silver and kept pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transenc.cli.console import out, out_json, table
from transenc.gold_plan import GOLD, MIX

if TYPE_CHECKING:
    from transenc.session import Session
    from transenc.stage import Stage

FLAT = 0.1  # silver labels that vary less than this share of gold's teach next to nothing


def about_gold(stage: Stage, session: Session) -> str:
    """Say in a few words what a stage with gold pairs will do."""
    n = len(session.inputs.gold_pairs)
    if stage.kind == "gold":
        return f"{n:,} gold pairs"
    if stage.kind == "augment":
        return f"{', '.join(stage.settings['augment'])}, {stage.settings['copies']} a pair"
    chosen = f", chosen by {stage.settings['keep']}" if stage.settings["keep"] else ""
    hard = f", 1 from {stage.settings['hard']:g} on" if stage.settings["hard"] is not None else ""
    return f"gold x {stage.settings['weight']:g}, silver x {stage.settings['silver_weight']:g}{chosen}{hard}"


def learnt_from(source: str, session: Session, n: int) -> tuple[int, str]:
    """Return how many pairs of the stage `source` are learnt, n being mined or given, and `up to` if maybe fewer."""
    if session.inputs.gold is None:
        return n, ""
    count, gold = len(session.inputs.gold_pairs), session.settings.gold
    if source == GOLD:
        return count, ""
    # The rewritten pairs that equal old ones, and those that a sampler drops by their labels, are not known yet.
    silver = count * gold.copies * len(gold.augment) if source == MIX and gold.scenario == "gold" else n
    return round(count * gold.weight + silver * gold.silver_weight), "up to "


def show_labels(session: Session, *, as_json: bool) -> None:
    """Print how the labels of gold, silver and kept pairs are distributed, for each time they were put together."""
    for stage in session.stages:
        if stage.kind != "mix":
            continue
        report = session.runner.info(stage.name, "mix")
        if as_json:
            out_json({"labels": stage.name, **report})
            continue
        if stage.cycle:  # later ones are in the run directory; they differ little
            continue
        out("")
        bins = [f"{i / 10:.1f}" for i in range(10)]
        counts = {"gold": "gold_pairs", "silver": "silver_pairs", "kept": "kept_pairs"}
        rows = [
            [name, *(f"{n:,}" for n in report["histograms"][name]), f"{sum(report['histograms'][name]):,}"]
            for name in counts
        ]
        table(
            ["labels from", *bins, "pairs"],
            rows,
            title=f"{stage.name}: {report['pairs']:,} pairs to train on",
        )
        for line in told(report):
            out(f"  {line}")


def told(report: dict[str, Any]) -> list[str]:
    """Put the facts of a mix into sentences."""
    lines = []
    if report["silver_also_gold"]:
        lines.append(f"{report['silver_also_gold']:,} silver pairs are gold pairs already and were left out")
    sd = report["spread"]
    if report["kept_pairs"] and sd["silver"] < FLAT * sd["gold"]:
        lines.append(
            f"warning: the silver labels hardly differ (deviation {sd['silver']:.3f}, gold {sd['gold']:.3f}): "
            "the teacher learnt little; give more gold, or --set gold.teacher.epochs=20"
        )
    return lines + ([rule_line(report["rule"])] if report["rule"] else [])


def rule_line(rule: dict[str, Any]) -> str:
    """Say how many pairs were kept by their labels, and how much nearer to gold's distribution that is."""
    return (
        f"{rule['rule']}: kept {rule['kept']:,} of {rule['offered']:,} labelled pairs; divergence from gold "
        f"{rule['kl_offered']:.3f} -> {rule['kl_kept']:.3f} nats"
    )
