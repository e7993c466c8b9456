"""Put synonyms in the place of words: from a table of the user's, or from WordNet."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from transenc.augmenters import OneByOne, as_written, choose, replace_spans, word_spans
from transenc.augmenters.wordnet import PARTS, find_wordnet, read_wordnet
from transenc.errors import ConfigError, DataError
from transenc.lines import read_lines

PPDB = " ||| "
EQUIVALENT = "Equivalence"  # the entailment relation of PPDB 2.0 that keeps a label


class _Known(OneByOne):
    """Replace a share of the words that have synonyms; the capitals of a word are kept, its ending is not."""

    @property
    def synonyms(self) -> dict[str, list[str]]:
        """Return the synonyms of each lower-cased word."""
        raise NotImplementedError

    def _one(self, sentence: str, rng: np.random.Generator) -> str:
        spans = [(a, b) for a, b in word_spans(sentence) if sentence[a:b].lower() in self.synonyms]
        if not spans:
            return sentence
        words = []
        chosen = [spans[i] for i in choose(len(spans), self.share, rng)]
        for a, b in chosen:
            known = self.synonyms[sentence[a:b].lower()]
            words.append(as_written(known[int(rng.integers(len(known)))], sentence[a:b]))
        return replace_spans(sentence, chosen, words)


@dataclass(frozen=True)
class Synonyms(_Known):
    """Replace a share of the words that a table knows by one of their synonyms."""

    table: str = field(
        default="",
        metadata={"help": "File of word<TAB>synonym[<TAB>synonym...] lines, or of PPDB; also .gz."},
    )
    share: float = field(
        default=0.3, metadata={"help": "Share of the known words that change, at least one."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.table:
            raise ValueError("name a table of synonyms: synonyms:table=FILE.tsv, or take wordnet")

    def files(self) -> list[Path]:
        """Return the file that decides the result."""
        return [Path(self.table)]

    @cached_property
    def synonyms(self) -> dict[str, list[str]]:
        """Return the synonyms of each lower-cased word, read once."""
        return read_table(Path(self.table))


@dataclass(frozen=True)
class WordNet(_Known):
    """Replace a share of the words that stand in their base form by words of their most frequent meaning."""

    dir: str = field(
        default="", metadata={"help": "Directory of WordNet's index.* and data.*; else it is looked for."}
    )
    share: float = field(
        default=0.3, metadata={"help": "Share of the known words that change, at least one."}
    )
    senses: int = field(default=1, metadata={"help": "Meanings of a word, the most frequent first."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.senses < 1:
            raise ValueError(f"senses must be at least 1, not {self.senses}")

    def files(self) -> list[Path]:
        """Return the files that decide the result."""
        found = find_wordnet(self.dir)
        return [found / f"{kind}.{part}" for kind in ("index", "data") for part in PARTS]

    @cached_property
    def synonyms(self) -> dict[str, list[str]]:
        """Return the synonyms of each word, read once."""
        return read_wordnet(find_wordnet(self.dir), self.senses)


def read_table(path: Path) -> dict[str, list[str]]:
    """Read `word<TAB>synonym...` or PPDB lines; raise DataError naming a line that is neither, or an empty file.

    Of PPDB only single words on the left are taken, and where the lines have a relation only those that are
    equivalent (PPDB 2.0, Pavlick et al. 2015).
    """
    found: dict[str, dict[str, None]] = {}
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(PPDB) if PPDB in line else line.split("\t")
        fields = [f.strip() for f in fields]
        if PPDB in line:
            if len(fields) < 4:
                raise DataError(
                    f"{path}:{number}: a PPDB line has at least 4 fields, this one {len(fields)}."
                )
            word, others = fields[1], [fields[2]]
            if " " in word or (len(fields) > 5 and fields[5] != EQUIVALENT):
                continue
        else:
            word, others = fields[0], fields[1:]
            if not word or not any(others):
                raise DataError(f"{path}:{number}: expected word<TAB>synonym[<TAB>synonym...].")
        known = found.setdefault(word.lower(), {})
        known.update(dict.fromkeys(o for o in others if o and o.lower() != word.lower()))
    table = {word: list(others) for word, others in found.items() if others}
    if not table:
        raise ConfigError(
            f"{path} holds no synonyms: word<TAB>synonym lines, or PPDB's 'x ||| word ||| ...'."
        )
    return table
