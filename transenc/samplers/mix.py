"""Pairs of several samplers in given shares, such as half BM25 neighbours and half random pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from transenc import registry
from transenc.errors import ConfigError
from transenc.pairs import Index

if TYPE_CHECKING:
    from transenc.samplers import Encode, PairSampler

# A member of a mix is name:share or name:share:option=value,...; a further option follows a comma.
MEMBER = re.compile(r"(?P<name>[^:=,]+):(?P<share>\d+\.?\d*|\.\d+)(?::(?P<rest>.*))?")


@dataclass(frozen=True)
class Mix:
    """Hold samplers and their shares; `samplers.mine` mines each and keeps as many pairs as the shares allow."""

    spec: str = field(metadata={"help": "How it was named."})
    members: tuple[PairSampler, ...] = field(metadata={"help": "The samplers, the first ones' pairs first."})
    shares: tuple[float, ...] = field(metadata={"help": "Their shares of the pairs, which add up to 1."})

    @property
    def needs_encoder(self) -> bool:
        """Tell whether some member compares embeddings."""
        return any(getattr(member, "needs_encoder", False) for member in self.members)

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Return the pairs of all members, one after the other, in full; `mine` is what takes shares of them."""
        found = [m.sample(sentences, rng, encode=encode) for m in self.members]
        return np.concatenate([left for left, _ in found]), np.concatenate([right for _, right in found])

    def counts(self, available: Sequence[int]) -> list[int]:
        """Return how many pairs of each member make the largest mix in these shares, to the nearest pair."""
        total = min(n / share for n, share in zip(available, self.shares, strict=True))
        return [round(total * share) for share in self.shares]


def parse_mix(spec: str) -> list[tuple[str, float]] | None:
    """Split `bm25:0.5:k=5,random:0.5` into single specs and shares that add up to 1; None for a single sampler."""
    members: list[tuple[str, float]] = []
    for item in spec.split(","):
        found = MEMBER.fullmatch(item.strip())
        if found:
            rest = found["rest"]
            members.append((f"{found['name'].strip()}:{rest or ''}", float(found["share"])))
        elif not members:
            return None  # the first item decides, so that other errors are told by the single form
        elif "=" in item and ":" not in item.partition("=")[0]:
            before, share = members[-1]
            members[-1] = (f"{before}{'' if before.endswith(':') else ','}{item.strip()}", share)
        else:
            raise ConfigError(
                f"'{item}' in '{spec}' is neither name:share nor option=value, as in 'bm25:0.5:k=5,random:0.5'."
            )
    total = sum(share for _, share in members)
    if any(share <= 0 for _, share in members):
        raise ConfigError(f"Every share in '{spec}' must be above 0; leave out what has none.")
    return [(name.rstrip(":"), share / total) for name, share in members]


def build(spec: str) -> PairSampler:
    """Build the sampler that a spec names: one (`bm25:k=5`) or several in shares (`bm25:0.5,random:0.5`)."""
    members = parse_mix(spec)
    if members is None:
        sampler: PairSampler = registry.create(registry.SAMPLERS, spec)
        return sampler
    samplers = tuple(registry.create(registry.SAMPLERS, name) for name, _ in members)
    labelled = [name for (name, _), one in zip(members, samplers, strict=True) if hasattr(one, "keep")]
    if labelled:
        raise ConfigError(
            f"'{labelled[0]}' chooses pairs by their labels and cannot be a part of a mix; name it alone, with "
            "candidates=NAME."
        )
    return Mix(spec, samplers, tuple(share for _, share in members))


def owners(spec: str) -> list[list[str]]:
    """Return the distribution and version that own each sampler of a spec."""
    members = parse_mix(spec) or [(spec, 1.0)]
    return [list(registry.owner(registry.SAMPLERS, registry.parse_spec(name)[0])) for name, _ in members]
