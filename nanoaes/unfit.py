"""What a teacher or a list gives for a critique and is none: nothing, a refusal, text with tags.

None of these may become a training target, whoever wrote it. A refusal is looked for where an
endpoint says it, at the beginning: "I can't help but admire the light" and "I cannot see her eyes"
are critiques. Left out: refusals in languages that a few openings do not show.
"""

import re

from nanoaes.prompt import answer_text

_SORRY = (r"\W*(?:(?:unfortunately|i apologi[sz]e|(?:my )?apologies|(?:(?:i['’]?m|i am) )?"
          r"(?:(?:so|very|really|truly|terribly) )?(?:sorry|afraid))\b(?:,? but\b)?\W*)")
_CANNOT = (r"(?:i (?:can['’]?t|cannot|can not|won['’]?t|will not|could(?: not|n['’]?t))"
           r"|(?:(?:i['’]?m|i am) )?(?:unable|not able) to)")
_DO = (r"(?: \w+ly)? (?:(?:be able to )?help(?! but)|assist|view|access|open|process|provide|give"
       r"|offer|analy[sz]e|evaluate|assess|rate|judge|critique|comply|fulfil|continue|engage with"
       r"|(?:write|create|generate|produce) (?:an?|the|this|that) (?:\w+ )?(?:critique|review"
       r"|caption|description|analysis|text)|(?:identify|discuss|comment on) (?:(?:real|the|any) )?"
       r"(?:people|persons?|individuals?|faces?)"
       r"|(?:see|describe) (?:the|any|this|an) (?:image|picture|photo))")
_OTHERS = (r"\W*(?:(?:很|非常)?抱歉|对不起|我无法|作为一个?(?:ai|人工智能)|申し訳|lo siento"
           r"|je suis désolée?|es tut mir leid|мне жаль|извините)")
_PICTURE = r"(?:image|picture|photo\w*)"
_NOT_THERE = (rf"(?:no {_PICTURE} (?:was|is|has been)|(?:this|the) {_PICTURE} (?:(?:was|is|could) ?"
              r"n[o'’]?t|can(?:not|['’]?t| not)))(?: be)? (?:provided|attached|processed|loaded"
              r"|opened|displayed|analy[sz]ed)\b")
_REFUSAL = re.compile(
    rf"{_SORRY}?{_CANNOT}{_DO}|\W*(?:i['’]?m|i am) (?:\w+ )?sorry\b|\W*sorry, (?:but )?i\b"
    rf"|{_SORRY}?i (?:do not|don['’]?t) (?:have (?:the ability|access)|see (?:any|an) "
    rf"(?:image|picture|photo))|{_SORRY}?{_NOT_THERE}|{_OTHERS}", re.IGNORECASE)
REFUSED = "a refusal"
_AS_AN_AI = re.compile(r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)"
                       r"(?=,| (?:language|model|assistant|system))", re.IGNORECASE)


def unfit(critique: str) -> str:
    """Why this is no critique: "empty", "a refusal", "a tag inside"; "" for one."""
    if not critique.strip():
        return "empty"
    if _REFUSAL.match(critique) or _AS_AN_AI.search(critique):
        return REFUSED
    try:
        answer_text(critique, 0.0)
    except ValueError:
        return "a tag inside"
    return ""
