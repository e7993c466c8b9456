"""Simulate chains of models that teach each other, and which cycle rules on their agreement choose.

Scores are the truth, a share of the teacher's error and an error of one's own, of which a part is the family's in
each cycle. Printed is how far, in points of Spearman, the chosen cycle lies below the best of its family.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transenc.agreement import agreement
from transenc.metrics import Floats

START = 0  # the place of the start in a chain


@dataclass(frozen=True)
class Case:
    """How errors go on: the share that a student takes from its teacher, and the deviation of its own."""

    taken: float
    own: float


CASES = (Case(0.85, 0.12), Case(0.95, 0.2), Case(1.0, 0.35))


@dataclass(frozen=True)
class Chain:
    """Scores of a start and of the models after it, (models, pairs), the family of each, and the truth."""

    scores: Floats
    family: list[str]
    truth: Floats


def simulate(case: Case, cycles: int, pairs: int, rng: np.random.Generator) -> Chain:
    """Return the start and both models of each cycle."""
    truth = rng.normal(size=pairs)
    common = {family: rng.normal(size=pairs) for family in ("bi", "cross")}
    scores = [_standard(truth + 0.5 * rng.normal(size=pairs) + 0.6 * rng.normal(size=pairs))]
    family = ["bi"]
    for learning in ("cross", "bi") * cycles:
        own = 0.6 * common[learning] + 0.8 * rng.normal(size=pairs)
        scores.append(_standard(truth + case.taken * (scores[-1] - truth) + case.own * own))
        family.append(learning)
    return Chain(np.array(scores), family, truth)


def _standard(values: Floats) -> Floats:
    standard: Floats = (values - values.mean()) / values.std()
    return standard


Rule = Callable[
    [Chain, Floats, int], float
]  # of a chain, the agreements of its models, and one model's place


def _with(places: Callable[[Chain, int], list[int]]) -> Rule:
    """Return the rule that takes the mean agreement with the models at some places."""

    def rule(chain: Chain, agreements: Floats, place: int) -> float:
        others = [other for other in places(chain, place) if other != place]
        return float(np.mean(agreements[place, others])) if others else 0.0

    return rule


def _learnt(chain: Chain) -> range:
    return range(1, len(chain.family))


RULES: dict[str, Rule] = {
    "agreement with all, as `--select agreement`": _with(lambda chain, _: list(_learnt(chain))),
    "with all but neighbours": _with(lambda chain, at: [i for i in _learnt(chain) if abs(i - at) > 1]),
    "with the other family alone": _with(
        lambda chain, at: [i for i in _learnt(chain) if chain.family[i] != chain.family[at]]
    ),
    "with the mean of all others and the start": lambda chain, _, at: agreement(
        chain.scores[at], chain.scores.sum(axis=0) - chain.scores[at]
    ),
    "with the start": _with(lambda chain, at: [START]),
    "with neighbours alone": _with(lambda chain, at: [i for i in (at - 1, at + 1) if i < len(chain.family)]),
    "the first cycle": lambda chain, _, at: -at,
    "the last cycle": lambda chain, _, at: at,
}


def choices(chain: Chain) -> dict[tuple[str, str], int]:
    """Return the place of the model that each rule chooses, by family and rule."""
    agreements = np.array([[agreement(a, b) for b in chain.scores] for a in chain.scores])
    found = {}
    for family in ("bi", "cross"):
        places = [i for i in _learnt(chain) if chain.family[i] == family]
        for name, rule in RULES.items():
            found[family, name] = max(places, key=lambda i: rule(chain, agreements, i))
    return found


def below_best(chain: Chain) -> dict[str, list[tuple[float, int]]]:
    """Return for each rule, by family, how far its choice lies below the best (points of Spearman), and its cycle."""
    values = [agreement(scores, chain.truth) for scores in chain.scores]
    best = {f: max(values[i] for i in _learnt(chain) if chain.family[i] == f) for f in ("bi", "cross")}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in RULES}
    for (family, name), chosen in choices(chain).items():
        found[name].append((100 * (best[family] - values[chosen]), (chosen + 1) // 2))
    return found


def main(arguments: Sequence[str]) -> int:
    """Print a table of the rules."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality chains", description=__doc__)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    columns: list[dict[str, list[tuple[float, int]]]] = []
    for case in CASES:
        rng = np.random.default_rng(options.seed)
        columns.append({name: [] for name in RULES})
        for _ in range(options.repeats):
            chain = simulate(case, options.cycles, options.pairs, rng)
            for name, chosen in below_best(chain).items():
                columns[-1][name] += chosen
    heads = [f"teacher's error times {case.taken:g}, own {case.own:g}" for case in CASES]
    print(f"| rule | {' | '.join(heads)} |\n|{'---|' * (len(CASES) + 1)}")
    for name in RULES:
        cells = [
            f"{np.mean([d for d, _ in column[name]]):.1f} (cycle {np.mean([c for _, c in column[name]]):.1f})"
            for column in columns
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    return 0
