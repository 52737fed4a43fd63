"""Which language is a critique written in? By its script and its function words.

Foreign names and photographers' terms (bokeh, contre-jour, 黄山) do not make an English critique
foreign; a critique that changes its language in the middle is of none. Left out: languages without
a line in the tables, which are of none too, and the dialects of one language.
"""

import re

_SCRIPTS = {  # another script than Latin: letters of it alone tell the language, or nearly
    "ja": "\u3040-\u30ff", "ko": "\uac00-\ud7af\u1100-\u11ff", "zh": "\u4e00-\u9fff\u3400-\u4dbf",
    "ru": "\u0400-\u04ff", "ar": "\u0600-\u06ff", "he": "\u0590-\u05ff", "el": "\u0370-\u03ff",
    "hi": "\u0900-\u097f", "th": "\u0e00-\u0e7f",
}
_LETTERS = {code: re.compile(f"[{letters}]") for code, letters in _SCRIPTS.items()}
_DENSE = {"ja": 3, "ko": 3, "zh": 3}  # one sign stands for some three letters
_FUNCTION = {  # common words of each language, some of several; a few of photographs in English
    "en": "the of and is are was with this that it its but by which from to as at or has have not "
          "a an in on for no nor one all be he she his her there they so more most too very only "
          "would could can if than into where what who nothing little rather while both here "
          "light color colour mood picture image composition exposure photograph frame shadow",
    "de": "der die das und ist sind mit nicht ein eine einen dem den von zu auf sich aber im in am "
          "für wird auch als es an so",
    "fr": "le la les de des du et est sont une un dans mais avec qui que sur pour pas au cette ce "
          "ne il plus peu en à se a on l d n qu",
    "es": "el la los las de y es una un con pero por para del se lo su más está muy que no en son "
          "sin a al e",
    "it": "il lo la i gli le di che è e una un con per ma del della non sono nel alla più ben si "
          "al in a l o da po",
    "pt": "a o as os uma um de do da dos das e é não mas com que na no nas ao se mais muito em são "
          "por para pouco",
    "nl": "het de een en is maar van niet met zijn op dat wat te al zich ook voor in die er om",
    "sv": "och är en ett det som med inte på av till den för men i", "pl": "jest nie się na i w z "
    "ale to że jak do", "da": "og er et en det som ikke af på til den for men i med",
    "tr": "ve bir bu ile için ama çok de da", "id": "yang dan dengan ini adalah tidak pada untuk "
    "di", "vi": "và của là một có không với trong",
}
_WORDS = {code: frozenset(words.split()) for code, words in _FUNCTION.items()}

_FOREIGN = 0.25  # of the letters or of the function words: more than a name or a quotation
_NAMES = 0.2  # of the letters may be Latin in a critique in another script
_FEWEST = 0.1  # of the words must be the language's function words


def language(text: str) -> str:
    """The code of its language, "en"; "" where it is mixed or unknown, also of an empty text."""
    signs = {code: _DENSE.get(code, 1) * len(pattern.findall(text))
             for code, pattern in _LETTERS.items()}
    latin = len(re.findall("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]", text))
    other = sum(signs.values())
    if not latin + other:
        return ""
    if other > _FOREIGN * (latin + other):
        return _by_script(signs) if latin <= _NAMES * (latin + other) else ""
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = {code: sum(word in some for word in words) for code, some in _WORDS.items()}
    best = max(counts, key=lambda code: counts[code])
    known = sum(any(word in some for some in _WORDS.values()) for word in words)
    if counts[best] < _FEWEST * len(words) or counts[best] < (1 - _FOREIGN) * known:
        return ""
    return best


def _by_script(signs: dict[str, int]) -> str:
    """Japanese is written in Chinese signs, too: its own need not be many."""
    if signs["ja"] > 0.1 * (signs["ja"] + signs["zh"]):
        return "ja"
    return max(signs, key=lambda code: signs[code])
