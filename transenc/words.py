"""What counts as a word: letters with the marks over them, and in scripts without spaces each character."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

PLAIN = {
    False: re.compile(r"\w+"),
    True: re.compile(r"\w+(?:['’]\w+)*"),
}  # with words joined by an apostrophe, or not
# Thai, Lao, Burmese, Khmer, Chinese characters and hiragana; katakana is mostly written in whole words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u309f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
JOINERS = "\u200c\u200d"  # invisible, inside words of Persian and of Indian languages


def word_pattern(sentence: str, *, joined: bool = False) -> re.Pattern[str]:
    """Return the pattern that finds the words of a sentence; joined: "can't" is one."""
    if sentence.isascii():
        return PLAIN[joined]
    special, patterns = _patterns()
    return patterns[joined] if special.search(sentence) else PLAIN[joined]  # it takes several times as long


@cache
def _patterns() -> tuple[re.Pattern[str], dict[bool, re.Pattern[str]]]:
    # To Python's \w vowel signs and accents that are characters of their own are no letters. Beyond U+FFFF they
    # belong to rare scripts, and re would compare each with every character.
    marks = JOINERS + "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
    letters = rf"[^\W{UNSPACED}]"
    word = rf"{letters}+(?:[{marks}]+{letters}*)*"
    alone = rf"(?=\w)[{UNSPACED}][{marks}]*"
    return re.compile(f"[{UNSPACED}{marks}]"), {
        False: re.compile(f"{word}|{alone}"),
        True: re.compile(f"{word}(?:['’]{word})*|{alone}"),
    }
