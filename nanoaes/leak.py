"""Does a critique give its score away? Found by program, from the words alone.

First what only looks like a score is taken out (`_OTHER`): apertures, shutter speeds, focal
lengths, ratios of sides, ISO numbers, years, times, shares of the frame. Then a score is looked for
(`_LEAK`) in figures of every script, words, stars, per cent, a few other languages; talk of
scoring, ratings, grades; a level's name as a label ("Verdict: fair", "in the good category"). A
closing judgement in plain words ("a strong picture") is no leak but what a critique ends in.
Left out: numbers spelled out in other languages but for a few, and what needs understanding ("as
many marks as a cat has lives").
"""

import re
import unicodedata

_WORD = ("(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty"
         "|(?:thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ -](?:one|two|three|four|five|six"
         "|seven|eight|nine))?)")
_FIGURE = r"(?<![a-z\d.,])(?:\d{0,3}[.,]\d+|100|\d{1,2})\+?(?![a-z\d%]|[.,:]\d)"
_N = rf"(?:{_FIGURE}|\b{_WORD}\b)"
_LONE = rf"(?:{_FIGURE}|\b(?!one\b){_WORD}\b)(?: and a half)?"  # "a good one" is no score
_MOST = r"(?:5|10|20|100|five|ten|twenty|(?:a |one )?hundred|zehn|dix|diez|dieci|dez|x)\b"
# Behind a score the clause ends, or says what for; behind a count stands what is counted.
_FOR = (r"(?:for|from|overall|at (?:best|most|least)|because|and no|in total|in my|to me|if|when"
        r"|given|despite|but|tops|or so|maybe|perhaps|though|thanks|here|there|now|altogether"
        r"|on the whole|which|where|while|since|unless|without|is (?:fair|kind|too|about))\b")
_VERB = (r"(?:and|or|as|by|is|was|would|will|could|should|may|might|seems?|feels?|looks?|fits?"
         r"|depending|than|so)\b")
_END = rf"(?=\s*(?:[.;!?)\"”。！]|,(?!\d)|$|{_FOR}))"
_PERCENT = r"\s*(?:%|percent\b|per cent\b)"
_ALL = (r"(?:frame|image|picture|photo\w*|sky|scene|subject|width|height|time|light|face|area"
        r"|canvas|shot|view|background|foreground|crop|tones?|pixels?|left|right|top"
        r"|bottom)\b")
_UNITS = (r"mm|cm|km|m|k|kelvin|s|ms|secs?|seconds?|min|minutes?|hours?|h|ev|stops?|mp|megapixels?"
          r"|px|pixels?|dpi|ppi|°|degrees?|fps|hz|kg|l|inch(?:es)?|feet|ft|floors?|years?|bits?|x|×"
          r"|[ap]\.?m\b\.?|o['’]clock|metres?|meters?|€|\$|£|euros?|dollars?|st|nd|rd|th")


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_OTHER = _any(
    r"\b[ft]\s*/?\s*\d+(?:[.,]\d+)?(?![\d/])",  # f/2.8
    r"\b1\s*/\s*(?:\d+\s*-?(?:s|secs?|seconds?|th)\b|(?!(?:10|20|100)\b)\d{2,5}\b)",  # 1/250 s
    r"(?<!many )(?<!mostly )(?<!some )(?<![\w.,])[-+−]?(?:\d+(?:[.,]\d+)?\s*[-–]\s*)?\d*[.,]?\d+"
    rf"\s*-?(?:{_UNITS})(?!\w)",  # 50 mm
    r"\b\d+(?:[.,]\d+)?\s*:\s*\d+(?:[.,]\d+)?",  # 16:9, 5:30
    r"\b\d+\s*[x×]\s*\d+\b",  # 6x6
    r"\b(?:iso|aperture|shutter|gate|track)\s*[:-]?\s*\d+",
    r"\b(?:1[0-9]|20)\d\ds?\b|['’]?\b[1-9]0s\b",  # 1920s
    rf"(?:\d+\s*/\s*\d+|(?:\d+(?:[.,]\d+)?|\b{_WORD}){_PERCENT})\s*(?:of|in|from|to)\s+"
    rf"(?:the|its|his|her|their|this|that|all)\s+(?:\w+\s+)?{_ALL}",  # 1/3 of the frame
    r"\d+(?:[.,]\d+)?\s*%\s+(?!overall|quality|score|rating|good|aesthetic|of|for|from)[a-z]+",
    r"\b\d+\s*/\s*(?!(?:5|10|20|100)\b)\d+ (?!for|from|overall)[a-z]+",  # a 60/40 split
    r"\b(?:house |room |seat |bus |route |line |zone |platform |highway |no\.? )+\d+",
    r"(?<=[a-z,] )(?-i:(?!Scor|Rat|Light|Mood|Comp|Colou?r|Expos|Overall|Total|Story|Tech|Mark"
    r"|Grad)[A-Z][\w-]*) \d+(?:\.\d)?\b",  # a Boeing 747
    r"\b(?:saturation|clarity|vibrance|contrast|highlights|blacks|whites|sharpening|opacity|slider)"
    r"\s(?:is |set |pushed |pulled )?(?:at |to |of |by )?[-+]?\d{1,3}",
    r"\bnumber \d+(?= (?:is|was|on|in|hangs|painted|stands)\b)",
    r"\b(?:clock|watch)\b[^.,;]*",
    r"\b(?:price(?: tag)?|tag|sign|plate|speed|limit|(?:score)?board)\b[^.,;]{0,12}?\s"
    r"\d+(?:[.,:-]\d+)?",
    r"\bscores of\b|\ba score of (?!\d)[a-z]+|\bscore (?:sheet|marks?|lines?)\b",
    r"\brat(?:ed|ing) (?:speed|power|load|signs?|plate)\b",
)

# A sentence with one of these speaks of another score: of music, of a game, in bread.
_SCORED_ELSE = _any(
    r"\b(?:music\w*|piano|pianist|cell\w+|violin\w*|orchestra\w*|conductor|choir|singers?|goals?|teams?"
    r"|players?|football\w*|match|try|celebrat\w+|faces|bread|dough|ice|wood|rock|leather|clay)\b")
_GIVE = (r"\b(?:giv(?:e|es|en|ing)|gave|award(?:s|ed)?|deserv(?:e|es|ed)|earn(?:s|ed)?|gets?|got"
         r"|receiv(?:e|es|ed)|merit(?:s|ed)?|worth|call|rat(?:e|es|ed|ing)|grad(?:e|es|ed)|put|say"
         r"|assign(?:s|ed)?|make|places?|lands?|sits?|settles?|hovers?|stands?|comes?|go(?:es)?"
         r"|choose|pick|stop|clocks?|vot(?:e|es|ed)|mark(?:s|ed)?|guess|reckon|hits?)\b")
_PRAISE = (r"(?:solid|strong|weak|generous|easy|perfect|clear|clean|good|high|low|bare|mere|full"
           r"|firm|respectable|comfortable|poor|fair|decent|safe|shaky|sure|certain|well-earned"
           r"|deserved|honest|round|narrow|rare|borderline|near|straight|confident)")
_ABOUT = (r"(?<!of )(?<!aged )\b(?:about|around|roughly|approximately|approx\.?|nearly|almost"
          r"|close to|short of|shy of|above|below|near)")
_LEVEL = r"[\"'“‘]?(?:good|fair|bad|poor|excellent|average|mediocre|high|low|weak|strong)\b[\"'”’]?"
_ASPECT = (r"\b(?:composition|colou?rs?|light|lighting|mood|narrative|exposure|shadows?|overall"
           r"|total|quality|aesthetics?|verdict|beauty|note(?: finale)?|technique|impact|result)")

_OF_HOW_MANY = (
    rf"{_N}\s*(?:/|⁄)\s*(?:{_MOST})(?!\s*(?:of|s|sec)\b)(?!\d)",  # 7/10
    r"\b\w+\s+(?:out of|of a possible|von|sur|auf)\s+(?:a possible )?"
    rf"{_MOST}(?:\s+(?:stars|points|marks|punkten?)\b|{_END})",
    rf"\b[ivx]+\s*/\s*x\b|{_N} on (?:a )?(?:10|ten)\b|\b(?:ten|five|10|5)[- ]scale\b",
    r"\b(?:ten out of ten|10 out of 10)\b|\d of 10 (?:people|viewers|judges|voters)\b",
    r"\d (?:sur|von|de|di|su|из|من|از|van|od) (?:10|100|5|20)\b",
    rf"\b{_WORD} (?:thirds|quarters|fifths) of the (?:maximum|full|possible|total)\b",
    rf"{_N}\s+(?:out of|of|from|de|di|su|из)\s+{_MOST}(?:\s+(?:stars|points|marks)\b|{_END})",
    rf"\b[\w.,]+[ -]out[ -]of[ -](?:a[ -]possible[ -])?{_MOST}[ -](?:picture|image|photo\w*|shot"
    r"|effort|work|composition|frame|capture|result)\b",
    rf"\b{_WORD}[ -]tenths?\b(?! of a second)",
    r"(?:%|percent|per cent|in ten|of ten) (?:of )?(?:all )?(?:the )?(?:other )?(?:pictures|images"
    r"|photo\w*|entries)\b",
    r"\b(?:10|ten|100|a hundred) being\b",
    rf"\bscale (?:of|from) (?:{_N}|\d)|\bscale where\b|\bpoint scale\b",
    r"\b(?:top|middle|bottom|end) of the scale\b(?! bar)|\bbad\W+fair\W+(?:and |or )?good\b",
)
_STARS_AND_POINTS = (
    r"[★☆⭐✩✭🌟✦✧✪✫]",
    rf"{_N}(?: and a half)?[ -]stars?(?:{_END}| (?:less|more|off|short)\b)",
    rf"(?:{_N}|\d)-stars?\s+(?!hotel|restaurant|resort|general|chef)\w+",
    rf"{_N} points?(?:{_END}| (?:off|out|lower|less|more|higher)\b)",
    rf"\b(?:minus|plus|loses?|lost|costs?|deduct\w*|gains?|drops?|docked?) (?:it )?(?:an? |{_N} )"
    r"(?:points?|stars?|marks?)\b(?! of)",
    r"\bhalf a (?:point|star|mark)\b|\b(?:off|more) a point\b|\bone more (?:point|star)\b",
    rf"(?:\d|\b{_WORD}){_PERCENT}(?:{_END}| of the (?:maximum|possible)\b(?! \w)"
    r"| (?:of the way|overall|quality|score|rating|good|aesthetic))",
    rf"^\W*\d+(?:[.,]\d+)?{_PERCENT}",
    rf"\b(?:top|bottom|best|upper|lower) (?:\d+|{_WORD}){_PERCENT}",
    r"\b(?:percentile|quartile|quintile|decile)\b|\b(?:full|maximum|bonus|extra) points?\b",
)
_BARE = (
    rf"{_GIVE}(?: (?:it|this|that|them|the \w+|mostly|at|on|in|to|with|for|near|around|about"
    rf"|only|just|an?|{_PRAISE}))*\s(?:{_N} (?:or|to) )?{_LONE}{_END}",
    rf"\ban? (?:{_PRAISE} )?{_LONE}(?:{_END}| {_VERB})",  # a solid seven
    rf"{_FIGURE}(?:{_END}| {_VERB})",  # whatever has no unit, no name and counts nothing
    r"(?<!of )(?<!about )(?<!the )(?<!in )(?<!by )(?<!for )(?<!into )(?<!than )(?<!to )(?<!and )"
    rf"(?<!at )(?<!past )\b(?!one\b|two\b){_WORD}\b{_END}",
    rf"\b(?:about|around|roughly|maybe|say|range of|an?) \d{{1,2}}\s*[-–]\s*\d{{1,2}}{_END}",
    r"\bmy (?:number|figure|estimate|guess|mark) (?:is|would be)\b",
    rf"(?:^|[.!?]\s+)(?:(?:{_PRAISE}|easily|just|barely|only|maybe|perhaps) )?(?:{_N}\s*[-–]\s*)?"
    rf"{_N}(?: and a half)?(?:\s*[.!]|$|, (?:perhaps|maybe|no|not|if|because|for)\b)",  # Seven!
    rf"[:=–—]\s*{_FIGURE}{_END}|\b(?!one\b){_WORD} and a half{_END}",  # Story: 9 from me
    rf"{_ABOUT}\s(?:an? )?(?:{_N}\s*(?:to|or|[-–])\s*)?{_LONE}{_END}",
    rf"\bbetween (?:an? )?{_N} and (?:an? )?{_N}{_END}",
    r"(?<!all )(?<!to the )\b(?:fours|fives|sixes|sevens|eights|nines)\b",
    r"\b(?:many|mostly|mainly|low|high|mid|some) [1-9]s\b",
    rf"\b(?:zero|one|about|roughly|nearly|around|to) point {_WORD}\b|\bpoint {_WORD}(?: {_WORD})?\b"
    rf"{_END}",
    r"(?<![\w.,:/])(?:\d{0,2}\.\d+|\d?,\d{1,2})(?![\w%]|[.,:/]\d)|\d1⁄2",  # 0.62 without a unit
    rf"{_ASPECT}\s*(?:[:=–—]|-\s)?\s*{_FIGURE}(?!\s*[a-z])",  # Light: 8
)
_TALK = (
    r"\b(?:rated|ratings?|raters?|ground truth|mos|mean opinion)\b",
    r"\b(?:voters|votes?|viewers|people|jury) (?:gave|averaged?|awarded|scored"
    rf"|(?:were|was) (?:mostly|mixed|{_N}|\w+s\b))",
    r"\b(?:people|viewers|many|most|others|raters|i|would|i['’]d) (?:would |will |might )?rates?\b"
    r"(?! of\b)",
    r"\b(?:people|viewers|many|most|others)\b(?: \w+){0,3} (?:have |had )?judged\b(?! by\b)",
    r"\b(?:their|people['’]s|viewers['’]?) (?:mean|average|judge?ment)\b",
    r"\bscor(?:es?|ed|ing)\b|\bannotat\w+|\blabel says\b|\baccording to the label\b",
    r"\b(?:final|overall) mark\b|\bmark (?:is|in the \w+ies)\b",
    r"\branked\b|\branking\b|\btop (?:third|half|quarter) of the (?:set|list)\b",
    r"\b(?:high|low|mid|top|well|best|poorly)[- ]scor(?:ing|ed|er)\b",
    r"\b(?:top|full|poor|high|low|possible|maximum) marks\b(?! (?:on|in|of)\b)|\bmarks?\s*:",
    rf"\bmark of {_N}",
    r"\branks? (?:in|among|high|low)\b|\bassigned (?:value|number|label)\b",
    r"\bi (?:was|am|have been) told\b",
    r"\bgrade\s*[:=]|\bgrade of [a-f]\b|\bgrade (?:it|this|the (?:picture|image|photo\w*))\b",
    r"\bgrade is an? [a-f]\b|\b[a-df]\+(?=[\s.,;!]|$)|\ban? [a-f][ -](?:plus|minus)\b",
    r"(?-i:\b[Gg]rade [A-F]\b|\b(?:[Ss]olid|[Ss]trong|[Ww]eak) [A-D]\b[+-]?(?=[.,]|$))",
    r"(?-i:\b(?:an A|a [BCD])[+-]?(?=[.,;!]|$| for\b))",
)
_LEVELS = (
    r"\b(?:verdict|level|quality|assessment|category|class|tier|judge?ment|label)\s*[:=–—]\s*"
    rf"{_LEVEL}(?!\s+[a-z])",
    rf"\b(?:in|into|to|of|as) (?:the |an? ){_LEVEL} (?:category|band|tier|bracket|class|bucket"
    r"|level|bin)\b(?! of)",
    r"\b(?:upper|lower|top|bottom|middle) (?:tier|bracket|category)\b",
    r"\b(?:level|class|tier|category)(?: \d|-(?:one|two|three))\b|[\"“'](?:good|fair|bad)[\"”']",
    rf"\bclassified as {_LEVEL}|\b(?:aesthetic|quality) level is\b",
)
_OTHER_LANGUAGES = (  # 三分 is the rule of thirds, 十分 "very", 2点透視 a perspective
    r"[评評得]分|打分|(?:\d|[一二四五六七八九]|[二三四五六七八九]十[一-九]?)分(?![钟鐘之])",
    r"点満点|\d+点(?![透照光])|별점|\d+점(?! ?[투조])",
    r"(?:\d|\b\w+) (?:punkten?|puntos|punti|pontos|баллов|балла)\b",
    r"\b(?:cinco|seis|siete|ocho|nueve) de diez\b|\bоценка\b|\bnote(?: finale)?\s*:",
)
_SCORE = _any(r"\bscor\w+")
_LEAK = _any(*_OF_HOW_MANY, *_STARS_AND_POINTS, *_BARE, *_TALK, *_LEVELS, *_OTHER_LANGUAGES)


def leak_in(critique: str) -> str:
    """The words that give the score away, written out or by talk of scoring; "" without any."""
    said = (_SCORE.sub("_", part) if _SCORED_ELSE.search(part) else part
            for part in re.split(r"(?<=[.!?]) ", _plain(critique)))
    found = _LEAK.search(_OTHER.sub(" _ ", " ".join(said)))
    return found[0].strip() if found else ""


def _plain(text: str) -> str:
    """Full-width and other scripts' figures as ASCII's, one kind of blank, no endless number."""
    text = unicodedata.normalize("NFKC", text).replace("🔟", "10")
    text = re.sub("[٫·]", ".", text)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = re.sub(r"\d{7,}", "_", text)  # to the patterns a run costs its square
    return re.sub(r"[^\S\n]+|[\u20e3\ufe0f]", " ", text)
