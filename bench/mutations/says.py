"""Mutations of what is read from critiques' words."""

from mutations.mutant import Mutant as M

SAYS = {
    "nanoaes/says.py": [
        M("denied praise is praise", "praise |= good[0] > 0 or bad[1] > 0", "praise |= good[0] > 0",
          "says"),
        M("denied praise is no blame", "blame |= bad[0] > 0 or good[1] > 0", "blame |= bad[0] > 0",
          "says"),
        M("a negation reaches one word", "_REACH = 5", "_REACH = 1", "says"),
        M("a negation reaches the whole clause", "_REACH = 5", "_REACH = 99", "says"),
        M("not only is a negation", "_NO_NO.sub(\" \", text)", "text", "says"),
        M("the first sentence judges", "said[-1])", "said[0])", "says"),
        M("what is conceded counts", "core = _CONCEDES.sub(\" \", last)", "core = last", "says"),
        M("not bad is good", "+ not_bad  # ", "  # ", "says"),
        M("every last sentence judges", "if spoken(last) and not (", "if False and not (", "says"),
        M("every last clause judges", "if spoken(last) or len(last.split()) > _SHORT:", "if False:",
          "says"),
    ],
    "nanoaes/language.py": [
        M("Japanese is Chinese", '    if signs["ja"] > 0.1', '    if signs["ja"] > 9', "says"),
        M("a foreign name is a foreign text", "if other > _FOREIGN * (latin + other):",
          "if other:", "says"),
        M("any word will do", "counts[best] < _FEWEST * len(words) or", "", "says"),
    ],
    "nanoaes/filters.py": [
        M("one side is enough", "if not found]\n    return f\"no", "if found]\n    return f\"no",
          "filters"),
        M("an end is left out", "if n < least else", "if n <= least else", "filters"),
        M("too long is fine", 'if n > most else ""', 'if n > 10 * most else ""', "filters"),
        M("held against repeats, too", "        if first is None:\n            for",
          "        if 1:\n            for", "filters"),
        M("the commonest are looked up", "(seen[shingle], shingle)", "(-seen[shingle], shingle)",
          "filters", "slower, but two near texts share one of these, too"),
        M("one shingle too few is looked up", "ceil(NEAR * len(some)) + 1",
          "ceil(NEAR * len(some))", "filters"),
        M("shared of the smaller", "len(a & b) * (1 + NEAR) >= NEAR * (len(a) + len(b))",
          "len(a & b) >= NEAR * min(len(a), len(b))", "filters"),
    ],
    "nanoaes/quality.py": [
        M("people's level is the reply's", 'level == score_level(item["truth"])',
          'level == score_level(item["pred"] or 0)', "quality"),
        M("an unreadable score is 0", 'np.nan if item["pred"] is None else level',
          'level == 0 if item["pred"] is None else level', "quality"),
        M("one side is both", "all(sides(text))", "any(sides(text))", "quality"),
        M("a critique repeats itself", "comb(n - d, m)", "comb(n - d - 1, m)", "quality"),
        M("repetition grows with the set", "m = min(OTHERS, n - 1)", "m = n - 1", "quality"),
        M("all sets have the same draws", "_drawn(table, [seed, i])", "_drawn(table, [seed, 0])",
          "quality"),
        M("a set without critiques counts as 0", "for table in tables if table and",
          "for table in [t or dict.fromkeys(KEYS, np.zeros(1)) for t in tables] if", "quality"),
    ],
    "nanoaes/toy/road.py": [
        M("all pictures are one set", "sum(rights) / len(rights)", "sum(rights)", "page_quality"),
    ],
}
