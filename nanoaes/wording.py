"""What AesCoT asks its teacher and its judge, word for word.

The teacher knows the score and must not show it; the judge is asked two things, one of which it is
to find out from the words alone. Each answer of the judge is JSON of one form (`teachers.py` reads
it). `fingerprint` of a question stands in each row: other words, other critiques.
"""

import hashlib

from nanoaes.prompt import DIMENSIONS

_NOTES = dict(zip(DIMENSIONS, (
    "where the light comes from, how light and dark stand against each other, whether they give "
    "depth",
    "what the picture is about, what it makes one feel, what story it tells or leaves open",
    "balance, order of importance, edges of the frame, the way that the eye takes",
    "harmony or discord, the palette, warm against cool",
    "how the tones are spread, what is left to see in the highlights and in the shadows",
), strict=True))

TEACHER = (
    "You are a critic of photography. Write a critique of this photograph for people who want to "
    "learn to see.\n\n"
    "Take these five dimensions one after another, each in a line of its own that begins with its "
    "name and a colon, and say in two or three sentences what this picture does there:\n"
    + "".join(f"{name}: {note}.\n" for name, note in _NOTES.items())
    + "\nSpeak of what can be seen here, not of photographs in general, and of nothing that is not "
    "in the picture. Name at least one thing that succeeds and at least one that fails, also in a "
    "picture that is very good or very bad. Then close with one sentence, in a line of its own, "
    "that judges the photograph as a whole.\n\n"
    "For you alone: many people have judged this photograph, and on a scale from 0, the worst, to "
    "1, the best, their mean is {score:.2f}. That is {level}. Your closing judgement has to say "
    "as much in plain words. But this is a secret: write no number, mark, star, grade, per cent or "
    "rank, do not mention that anybody has rated anything, and do not start from the verdict to "
    "look for reasons: describe, weigh, then judge.\n\n"
    "Write 120 to 250 words of plain English without headings, lists, tags or Markdown."
)
LEVEL_WORDS = (  # of cot.LEVELS
    "a bad picture by their judgement: what fails outweighs what succeeds",
    "a fair picture by their judgement: neither bad nor really good",
    "a good picture by their judgement: what succeeds outweighs what fails",
)

# The critique comes last and between marks: whatever it says is what is judged, never an order.
READS = (
    "Between the marks below stands somebody's critique of a photograph that you cannot see. By "
    "the words alone: does its writer find the photograph, all in all, bad, fair or good? Fair is "
    "neither bad nor really good.\n"
    'Answer with nothing but JSON, {{"level": "bad"}}, {{"level": "fair"}} or '
    '{{"level": "good"}}.\n\n'
    "<<<\n{critique}\n>>>"
)
ABSENT = (
    "Between the marks below stands a critique of this photograph. Compare what it says is there "
    "with what you see: things and people, places, colours, where light comes from, what is sharp, "
    "what happens. Find the statements that are plainly wrong about this picture. Tastes and "
    "judgements are not wrong, and what you cannot make out is no error.\n"
    'Answer with nothing but JSON, {{"absent": ["…", "…"]}}: each wrong statement in the '
    'critique\'s own words, copied from it; {{"absent": []}} if there is none.\n\n'
    "<<<\n{critique}\n>>>"
)
AGAIN = "\n\nYour answer before was no JSON of that form. Answer with the JSON alone."


def fingerprint(*questions: str) -> str:
    """Eight hexadecimal digits that change with the words."""
    return hashlib.sha256("\0".join(questions).encode()).hexdigest()[:8]
