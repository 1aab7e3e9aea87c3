"""What a caption is about: its words without endings, so that two captions of the same sound share one.

Inflections of English are undone by rule (plurals, -ing, -ed, -er, a doubled consonant, a final e), frequent irregular
forms by a table. The rules rather take two words for one than one for two: sounds held for the same are only not mixed
with each other, sounds held for different would be target and partner at once.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["content_words", "stem"]

_STOP_WORDS = """
    a an and are as at background be by down during from for her his in into is it its nearby of off on
    onto or out over several some sound sounds sounding someone something that the their then there they
    this through to two up various very while with
    音 声 的 在 一
"""
_STOP = frozenset(_STOP_WORDS.split())
_IRREGULAR_FORMS = """
    child children, man men, woman women, person people, mouse mice, goose geese, foot feet, tooth teeth, ox oxen,
    bus buses busses, gas gases gasses, blow blew blown, break broke broken, drive drove driven, fly flew flown,
    laugh laughter, ride rode ridden, ring rang rung, run ran, shake shook shaken, shoot shot, sing sang sung,
    speak speech spoke spoken, strike struck, swim swam swum, tear tore torn, throw threw thrown, weep wept
"""
_IRREGULAR = {form: forms.split()[0] for forms in _IRREGULAR_FORMS.split(",") for form in forms.split()}
_VOWELS = "aeiouy"
# Scripts without spaces: an ideograph is a word, katakana a loanword; hiragana is grammar and left out.
_WORDS = re.compile(
    r"[\u3400-\u9fff\uf900-\ufaff]|[\u30a1-\u30fa\u30fc]+|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


def content_words(caption: str) -> frozenset[str]:
    """The stems of the words that say what is heard; none for a caption of stop words and numbers only."""
    words = _WORDS.findall(unicodedata.normalize("NFKC", caption).casefold())
    return frozenset(stem(word) for word in words if word not in _STOP and (len(word) > 2 or not word.isascii()))


def stem(word: str) -> str:
    """A lower-case English word without its endings: equal for all forms of a word, itself not always a word."""
    word = _IRREGULAR.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = _IRREGULAR.get(word[:-1], word[:-1])
    for endings, kept in ((("ing", "ed"), "eed"), (("er",), "eer")):
        ending = next((ending for ending in endings if word.endswith(ending)), "")
        rest = word.removesuffix(ending)
        if ending and not word.endswith(kept) and len(rest) > 1 and set(rest) & set(_VOWELS):
            word = _IRREGULAR.get(rest, rest)
    word = word.removesuffix("e")
    if len(word) > 2 and word[-1] == word[-2] and word[-1] not in _VOWELS:
        word = word[:-1]
    # knife, knives; cry, cries
    return word[:-1] + {"v": "f", "y": "i"}.get(word[-1], word[-1])
