"""What labels and mined pairs are worth: every sampler, every augmenter, another domain, mined against given pairs.

python -m benchmarks.augsbert --seeds 1,2,3 --results results.jsonl --data DIR [--only few/] [--start MODEL]
python -m benchmarks.augsbert --results results.jsonl --table

It can be stopped at any time: finished experiments are in the results file and are skipped, begun ones continue in
their run directory. `--list` shows what would run.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cache import fetch, put
from benchmarks.quality.rows import append_row, read_rows
from transenc import config, tasks
from transenc.inputs import settings_for
from transenc.session import Session


@dataclass(frozen=True)
class Experiment:
    """One run: its name, its recipe and what it changes of that."""

    name: str
    recipe: str
    values: dict[str, Any]


def experiments(asked: argparse.Namespace) -> list[Experiment]:
    """List every comparison; the first of a group is what the others are compared with."""
    gold = f"stsb-train:{asked.gold}"
    few = {"task": "stsb", "gold": {"source": gold}}
    found = [Experiment("few/gold only", "augsbert-gold", config.merge(few, {"gold": {"augment": []}}))]
    samplers = {
        "random": "random:per_sentence=3",
        "bm25": "bm25:k=3",
        "semantic": "semantic:k=3",
        "bm25+semantic": "bm25+semantic:k=3",
        "kde": "kde:candidates=random:per_sentence=10",
        "bm25 and random": "bm25:0.5,random:0.5",
    }
    for name, sampler in samplers.items():
        found.append(Experiment(f"few/+ {name}", "augsbert-few", config.merge(few, {"sampler": sampler})))
    more = {"sampler": "bm25:k=3", "cycles": 1}
    found.append(Experiment("few/+ bm25, then a cycle", "augsbert-few", config.merge(few, more)))

    augmenters = ["delete", "repeat", "noise"]
    if asked.wordnet:
        augmenters.append("wordnet" if asked.wordnet == "auto" else f"wordnet:dir={asked.wordnet}")
    if asked.synonyms:
        augmenters.append(f"synonyms:table={asked.synonyms}")
    if asked.masked_lm:
        augmenters += [f"insert:model={asked.masked_lm}", f"substitute:model={asked.masked_lm}"]
    for spec in augmenters:
        values = config.merge(few, {"gold": {"augment": [spec]}})
        found.append(Experiment(f"rewritten/+ {spec.partition(':')[0]}", "augsbert-gold", values))

    for target in ("mrpc", "qnli"):
        source = {
            "task": target,
            "gold": {"source": f"stsb-train:{asked.source}"},
            "max_pairs": asked.max_pairs,
        }
        alone = config.merge(source, {"gold": {"augment": []}, "select": "last"})
        found.append(Experiment(f"domain {target}/source alone", "augsbert-gold", alone))
        for name in ("bm25", "semantic"):
            values = config.merge(source, {"sampler": f"{name}:k=3"})
            found.append(Experiment(f"domain {target}/+ {name}", "augsbert-domain", values))

    free: dict[str, Any] = {"task": "stsb", "max_pairs": asked.max_pairs, "cycles": asked.cycles}
    free["bi_sampler"] = None  # both encoders learn from the same pairs, except where it says otherwise
    mined = {
        "random": "random:per_sentence=3",
        "bm25": "bm25:k=3",
        "semantic": "semantic:k=3",
        "bm25+semantic": "bm25+semantic:k=3",
        "bm25 and random": "bm25:0.5,random:0.5",
        "semantic and random": "semantic:0.5,random:0.5",
        "bm25, semantic and random": "bm25:1,semantic:1,random:1",
    }
    corpus = str(asked.corpus or asked.work / "pool.txt")
    for recipe in ("self", "best"):
        found.append(Experiment(f"label-free {recipe}/given pairs", recipe, free))
        for name, sampler in mined.items():
            values = {**free, "corpus": corpus, "sampler": sampler}
            found.append(Experiment(f"label-free {recipe}/mined: {name}", recipe, values))
        for name in ("bm25", "semantic"):
            values = {
                **free,
                "corpus": corpus,
                "sampler": mined["bm25 and random"],
                "bi_sampler": mined[name],
            }
            title = f"label-free {recipe}/mined: bm25 and random, {name} for the bi-encoder"
            found.append(Experiment(title, recipe, values))
        values = {**free, "corpus": corpus, "sampler": "bm25+semantic:k=3", "remine": True}
        found.append(
            Experiment(f"label-free {recipe}/mined: bm25+semantic, afresh each cycle", recipe, values)
        )
    return found


def run(experiment: Experiment, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Carry out one experiment, or continue it, and return its results."""
    own = {"plm": [asked.start], "seed": seed, "recipe": experiment.recipe}
    settings = settings_for(config.merge(experiment.values, own, config.from_assignments(asked.set)))
    folder = re.sub(r"[^a-z0-9]+", "-", experiment.name.lower()).strip("-")
    began = time.perf_counter()
    session = Session.open(
        settings, root=asked.work / f"{folder}-{seed}", data=asked.data, device=asked.device
    )
    with session.context.store.lock():
        fetch(session, session.stages, asked.work / "cache")
    outcome = session.run()
    put(session, session.stages, asked.work / "cache")
    rows = [
        {"model": f"{row.label}, {row.family}", "dev": row.dev, "tests": row.tests, "average": row.average}
        for row in outcome.rows
    ]
    best = {
        b.family: next(r["average"] for r, row in zip(rows, outcome.rows, strict=True) if row.path == b.model)
        for b in outcome.best
    }
    mixes = {s.name: session.runner.info(s.name, "mix") for s in session.stages if s.kind == "mix"}
    return {
        "experiment": experiment.name,
        "seed": seed,
        "start": asked.start,
        "settings": {"recipe": experiment.recipe, **experiment.values},
        "best": best,
        "rows": rows,
        "mixes": mixes,
        "notes": session.notes,
        "metric": outcome.metric,
        "seconds": round(time.perf_counter() - began, 1),
        "machine": f"{platform.machine()}, {session.context.compute.device}",
    }


def show(results: list[dict[str, Any]]) -> None:
    """Print mean test scores and their deviations over seeds: of the start, of the last models and of those kept."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        grouped[result["start"], result["experiment"]].append(result)
    print("| start | experiment | seeds | start, bi | last bi | last cross | bi kept on dev | silver pairs |")
    print("|---|---|---|---|---|---|---|---|")
    for (start, name), same in grouped.items():
        cells = []
        columns = [[r["rows"][0]["average"] for r in same]]
        for family in ("bi", "cross"):
            made = [[x for x in r["rows"][1:] if x["model"].endswith(f", {family}")] for r in same]
            columns.append([rows[-1]["average"] for rows in made if rows])
        columns.append([r["best"]["bi"] for r in same if "bi" in r["best"]])
        for column in columns:
            values = 100 * np.array([v for v in column if v is not None])
            spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.2f}{spread}" if len(values) else "")
        kept = [r["mixes"]["gold/mix"]["kept_pairs"] for r in same if "gold/mix" in r["mixes"]]
        seeds = ", ".join(str(r["seed"]) for r in same)
        count = f"{np.mean(kept):,.0f}" if kept else ""
        print(f"| {Path(start).name} | {name} | {seeds} | {' | '.join(cells)} | {count} |")


def main() -> None:
    """Run what is missing in the results, or show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="JSON lines that are added to")
    parser.add_argument("--work", type=Path, default=Path("runs/augsbert"), help="where the runs lie")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--start", default="minilm", help="model that every experiment begins from")
    parser.add_argument("--data", type=Path, help="directory with the tasks' files")
    parser.add_argument("--gold", type=int, default=1000, help="gold pairs of STS-B")
    parser.add_argument("--source", type=int, default=5749, help="gold pairs of the runs that change domain")
    parser.add_argument(
        "--max-pairs", type=int, default=10_000, help="pairs of the label-free and domain runs"
    )
    parser.add_argument("--cycles", type=int, default=2, help="cycles of the label-free runs")
    parser.add_argument("--corpus", type=Path, help="sentences to mine instead of those of the STS pool")
    parser.add_argument("--wordnet", help="directory of WordNet's files, or auto: compare this augmenter too")
    parser.add_argument("--synonyms", help="table of synonyms: compare this augmenter too")
    parser.add_argument("--masked-lm", help="masked language model: compare insertion and substitution too")
    parser.add_argument("--only", default="", help="pattern that the experiment's name must hold")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, for all runs"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--list", action="store_true", help="show what would run")
    parser.add_argument("--table", action="store_true", help="show the results and stop")
    asked = parser.parse_args()
    results = read_rows(asked.results)
    if asked.table:
        show(results)
        return
    done = {(r["experiment"], r["seed"], r["start"]) for r in results}
    wanted = [e for e in experiments(asked) if re.search(asked.only, e.name)]
    left = [
        (e, s)
        for s in map(int, asked.seeds.split(","))
        for e in wanted
        if (e.name, s, asked.start) not in done
    ]
    print(f"{len(left)} runs, {len(done)} done before", flush=True)
    if asked.list:
        print("\n".join(f"{seed}: {e.name}" for e, seed in left))
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    pool = asked.work / "pool.txt"
    if not asked.corpus and not pool.exists() and any("corpus" in e.values for e, _ in left):
        sentences = tasks.pool(tasks.get("stsb"), asked.data).sentences
        pool.write_text("\n".join(dict.fromkeys(sentences)) + "\n", encoding="utf-8")
    for experiment, seed in left:
        result = run(experiment, seed, asked)
        append_row(asked.results, result)
        print(f"{experiment.name}, seed {seed}: {result['best']} in {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
