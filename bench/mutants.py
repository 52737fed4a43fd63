"""Do the tests notice a wrong program? Each mutant is the code with one thing wrong.

    python bench/mutants.py                      all of them, about 10 minutes on 2 cores
    python bench/mutants.py --only clip          those whose name, file or text holds "clip"
    python bench/mutants.py --jobs 1             one after another

Every git-tracked file is copied to a temporary folder, one mutation is made there, and the test
files that should notice run, on the CPU, with one thread a process. First they run without a
mutation: they have to pass. A mutant is killed by a test that fails, or by the time limit (a wrong
program may never end; the line says so). One that survives is a hole in the tests, or
`equivalent`: then the table says why. The last line is JSON.

To add one: a line below its file in TABLE, with what is wrong, the text as it stands in the file
(exactly once, else the run stops: the table shall not rot), what replaces it, and the smallest
test file that should fail: "loop" is tests/test_loop.py, "train:judge" its tests with `-k judge`.
`python bench/mutants.py --only "WHAT IS WRONG"` tries it. A new test file must be tracked by git.
Left out: mutations made by a machine (thousands, most of them equivalent), the Triton kernels
(tests compare every number of theirs with the torch backend's).
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    what: str  # is wrong
    old: str
    new: str
    tests: str  # file names without "test_", in the order in which they run
    equivalent: str = ""  # why no test can notice
    file: str = ""  # from the table


M = Mutant
TABLE = {
    "nanoaes/reward.py": [
        M("an image is its own partner", "partner.fill_diagonal_(False)",
          "partner = partner.clone()", "reward"),
        M("images of two sets are compared", "truth.group[:, None] == truth.group[None, :]",
          "truth.group[:, None] == truth.group[:, None]", "reward"),
        M("an unreadable image is a partner", " & (n_valid > 0)[None, :]", "", "reward"),
        M("the variance is biased", "squares / (n_valid - 1).clamp(min=1)",
          "squares / n_valid.clamp(min=1)", "reward"),
        M("only the partner's variance counts", "var[:, None] + var[None, :] + GAMMA",
          "2 * var[None, :] + GAMMA", "reward"),
        M("an unreadable answer is a 0 in the mean", "scores.sum(1) / n_valid.clamp(min=1)",
          "scores.mean(1)", "reward"),
        M("ties are always the paper's", 'tie = 0.5 if ties == "half" else 1.0', "tie = 1.0",
          "reward"),
        M("the worse image is preferred", "(difference > 0).to", "(difference < 0).to", "reward"),
        M("half of the fidelity is wrong", "((1 - p_c) * (1 - p)).sqrt()",
          "((1 - p_c) * p).sqrt()", "reward"),
        M("a spread is taken for a variance", "truth_std[:, None] ** 2 + truth_std[None, :] ** 2",
          "truth_std[:, None] + truth_std[None, :]", "reward"),
        M("the error is not squared", "(error / sigma) ** 2", "(error / sigma)", "reward"),
        M("an unreadable answer is scored",
          "torch.where(valid, torch.exp(-0.5 * (error / sigma) ** 2), 0)",
          "torch.exp(-0.5 * (error / sigma) ** 2)", "reward"),
        M("the format has no weight", "w_format * form", "form", "reward"),
        M("the Thurstone variance is blurred", "GAMMA = 1e-6", "GAMMA = 1e-2", "reward"),
        M("an image without raters' spread has none", "torch.where(variance.isnan(), hard, soft)",
          "soft", "reward"),
        M("divided by images that are no partners", "count = partner.sum(1).clamp(min=1)[:, None]",
          "count = len(scores) - 1", "reward"),
    ],
    "nanoaes/rapo.py": [
        M("the baseline is the step's", "reward - reward.mean(1, keepdim=True)",
          "reward - reward.mean()", "rapo"),
        M("the spread is the step's", "reward.std(1, keepdim=True)", "reward.std()", "rapo"),
        M("a flat group explodes", "return torch.where(flat[:, None], 0, centred), flat",
          "return centred, flat", "rapo"),
        M("always divided by the spread", 'if scale == "std":', "if scale:", "rapo"),
        M("one clip for both sides", "ratio.clamp(1 - eps_low, 1 + eps_high)",
          "ratio.clamp(1 - eps_low, 1 + eps_low)", "rapo"),
        M("the better of both sides of the clip", "objective = torch.minimum(",
          "objective = torch.maximum(", "rapo"),
        M("k1 for k3", "kl = difference.exp() - difference - 1", "kl = -difference", "rapo"),
        M("the KL is the other way round", "difference = (logp_ref - logp)",
          "difference = (logp - logp_ref)", "rapo"),
        M("the KL is maximised", "-(objective - beta * kl)", "-(objective + beta * kl)", "rapo"),
        M("an unseen token overflows", ".clamp(-20, 20)", "", "rapo"),
        M("clip_low has the wrong sign", "(tokens.advantage < 0)", "(tokens.advantage > 0)",
          "rapo"),
        M("clip_high has the wrong sign", "(tokens.advantage > 0)", "(tokens.advantage < 0)",
          "rapo"),
        M("the loss is a mean over tokens",
          "return mask * counted[..., None] / (lengths * n_counted.clamp(min=1))",
          "return mask * counted[..., None] / (mask * counted[..., None]).sum().clamp(min=1)",
          "rapo"),
        M("left-out rollouts are divided by", "(lengths * n_counted.clamp(min=1))",
          "(lengths * counted.numel())", "rapo"),
        M("the loss has no weights", '"loss": (tokens.weight * loss).sum()',
          '"loss": loss.mean()', "loop"),
        M("the spread is biased", "reward.std(1, keepdim=True)",
          "reward.std(1, keepdim=True, correction=0)", "rapo"),
        M("a small spread is none", "FLAT = 1e-6", "FLAT = 0.3", "rapo"),
        M("the spread is blurred", "keepdim=True) + 1e-4)", "keepdim=True) + 1e-2)", "rapo"),
        M("a maximum is a sum", "torch.maximum if name.endswith", "torch.add if name.endswith",
          "loop"),
        M("the entropy is the last micro-batch's",
          "sums[name] = join(sums[name], x) if name in sums else x", "sums[name] = x", "loop"),
    ],
    "nanoaes/logprob.py": [
        M("the entropy's sign", "m, s.log(), s.log() - t / s", "m, s.log(), s.log() + t / s",
          "logprob"),
        M("tiles are joined without their shift", "(w * (t + s * shift)).sum(0)",
          "(w * t).sum(0)", "logprob"),
        M("the gradient forgets the temperature", "g_logp * ctx.scale, g_entropy * ctx.scale",
          "g_logp, g_entropy", "logprob"),
        M("forbidden words have a share",
          "return x if forbidden is None else x.masked_fill_(forbidden, MASKED)", "return x",
          "logprob"),
        M("the gradient's sign", "d = logp.exp_().mul_(-g_logp)", "d = logp.exp_().mul_(g_logp)",
          "logprob"),
        M("rows after the first are forgotten", "total += _matmul(", "total = _matmul(",
          "logprob"),
        M("16-bit sums", "return torch.float64 if x.dtype == torch.float64 else torch.float32",
          "return x.dtype", "logprob"),
        M("sampled at temperature 1", "_logits(hidden, weight, 1.0 / temperature, forbidden)",
          "_logits(hidden, weight, 1.0, forbidden)", "rollout"),
        M("half of the entropy's gradient", "g_logp + g_entropy * entropy, g_entropy",
          "g_logp, g_entropy", "logprob"),
        M("digits are lost", "(chosen - top) - log_sum", "chosen - (top + log_sum)", "logprob"),
        M("the last rows' gradient of the head", "once = len(row_chunks) == 1", "once = True",
          "logprob"),
    ],
    "nanoaes/attention.py": [
        M("padding predicts an answer's first token", "prompt_mask.sum(1, keepdim=True) - 1",
          "prompt_mask.shape[1] - 1", "attention"),
        M("a token sees the next one", ".triu(1)", ".triu(2)", "attention"),
        M("answers see the prompt's padding", "~self.prompt_mask[:, None, None, None]",
          "self.prompt_mask[:, None, None, None] & False", "attention"),
        M("answers go on where the last one ended", "image * k * t + packed, packed % t",
          "image * k * t + packed, packed", "attention"),
        M("a sampled token does not see itself", "device=at.device) <= at",
          "device=at.device) < at", "attention"),
        M("samples see the prompt's padding", "torch.cat([self.mask[: self.n], past",
          "torch.cat([torch.ones_like(self.mask[: self.n]), past", "attention"),
        M("the masks stay when images leave", "self.mask[: len(images)] = self.mask[images]",
          "self.mask[: len(images)]", "attention"),
        M("the keys stay when rows leave", "x = x.gather(2, index)",
          "x = x[:, :, : rows.shape[1]]", "attention"),
        M("bf16 scores while sampling",
          "if query.dtype not in (torch.bfloat16, torch.float16):", "if query.dtype is not None:",
          "attention"),
        M("the prompt is stored at the front", "store[self.images, :, :length] = x",
          "store[: len(x), :, :length] = x", "rollout"),
    ],
    "nanoaes/rollout.py": [
        M("masks go on behind the stop",
          "rolls.mask.view(-1, plan.room)[rows.number, t] = rows.live",
          "rolls.mask.view(-1, plan.room)[rows.number, t] = True", "rollout"),
        M("one stop token of several", "torch.tensor(vlm.stop_ids, ",
          "torch.tensor(vlm.stop_ids[:1], ", "rollout"),
        M("what ended counts as cut", "[rows.number] = rows.live", "[rows.number] = ~rows.live",
          "rollout"),
        M("log-probs of temperature 1", "temperature or 1.0, vlm.forbidden)",
          "1.0, vlm.forbidden)", "rollout"),
        M("all pictures in one cache", "cached(plan.tokens) // (p + plan.k * plan.room)", "n",
          "rollout"),
        M("forbidden words are sampled", "temperature or 1.0, vlm.forbidden)",
          "temperature or 1.0)", "rollout"),
        M("one number for a whole answer", "plan.uniform[rows.number.flatten(), t]",
          "plan.uniform[rows.number.flatten(), 0]", "rollout"),
        M("every token at the first one's position", "rows.position.flatten() + t",
          "rows.position.flatten()", "rollout"),
        M("the live rows leave", "images = count.argsort(descending=True",
          "images = count.argsort(descending=False", "rollout"),
        M("the model stays in another mode", "vlm.train(was_training)", "vlm.train()", "rollout"),
        M("sampled in training mode", "    vlm.eval()\n", "", "rollout"),
        M("a cut answer loses its last token", "ids[: n - 1 + c]", "ids[: n - 1]", "rollout"),
        M("prompts in the order of their lengths", "[torch.cat(order).argsort()]", "", "rollout"),
        M("what the template opened is lost", "[vlm.opened + text for", "[text for", "rollout"),
        M("finished rows run on", "return not live", "return False", "rollout"),
        M("the first rows' numbers in every slice", "draw(p, uniform[at])",
          "draw(p, uniform[: len(p)])", "rollout"),
        M("no answer is ever cut", "map(Answer, texts, n_tokens, cut)",
          "map(Answer, texts, n_tokens, [False] * len(cut))", "eval"),
    ],
    "nanoaes/sampling.py": [
        M("an fp32 cumulated sum", "weight = weight.double()", "weight = weight.float()",
          "sampling"),
        M("the same numbers at every step", "default_rng((seed, step, place + 1))",
          "default_rng((seed, 0, place + 1))", "sampling"),
        M("the same numbers for every seed", "default_rng((seed, step, place + 1))",
          "default_rng((0, step, place + 1))", "sampling"),
        M("the same numbers for every picture", "default_rng((seed, step, place + 1))",
          "default_rng((seed, step, 1))", "sampling"),
        M("the largest number finds no word",
          ".minimum(torch.nextafter(last, torch.zeros_like(last)))", "", "sampling"),
        M("0 finds a word of weight 0", "(border > target[:, None])",
          "(border >= target[:, None])", "sampling"),
        M("the last word twice", ".masked_fill(word >= v, 0)", "", "sampling"),
        M("the number is used twice", "return index, (rest / width).clamp(min=0)",
          "return index, uniform", "sampling"),
        M("a word of weight 0 where a sum rises", ".masked_fill(weight == 0, 0)", "", "sampling",
          "a CPU adds one after another, and adding 0 changes nothing: only a parallel sum rises"),
    ],
    "nanoaes/sft.py": [
        M("padding counts", 'int(total({"n": mask.sum()})["n"])', "mask.numel()", "sft"),
        M("no stop is taught", '["input_ids"] + vlm.stop_ids[:1]', '["input_ids"]', "sft"),
        M("a mean per micro-batch", "-logp.sum() / n_tokens", "-logp.mean()", "sft"),
        M("SFT's rate stays the first", "lr=lr_at(step), max_norm", "lr=lr_at(0), max_norm", "sft"),
        M("SFT without weight decay", "weight_decay=weight_decay, betas", "weight_decay=0.0, betas",
          "sft"),
        M("SFT without a limit of the norm", "max_norm=max_grad_norm", "max_norm=1e9", "sft"),
        M("the mask is id != pad", "torch.arange(ids.shape[1]) < lengths[:, None]",
          "ids != vlm.pad_id", "sft"),
        M("the opened tag twice", "rest_of(a, vlm.opened)", "a", "sft"),
        M("the last micro-batch's loss", "loss + part[0].detach(), entropy + part[1]",
          "part[0].detach(), part[1]", "sft"),
    ],
    "nanoaes/sampler.py": [
        M("every epoch in the same order", "default_rng((self.seed, epoch))",
          "default_rng((self.seed, 0))", "sampler"),
        M("every seed in the same order", "default_rng((self.seed, epoch))",
          "default_rng((0, epoch))", "sampler"),
        M("no shuffling", "rng.permutation(members)", "members", "sampler"),
        M("the first pictures of an epoch again", "self.orders[epoch + 1][: max(",
          "self.orders[epoch][: max(", "sampler"),
        M("no pairs", "unit = min(2, len(sizes))", "unit = 1", "sampler"),
        M("single images of a set", "np.arange(len(order[-1])) // unit",
          "np.arange(len(order[-1]))", "sampler"),
        M("the worst pictures are held out",
          "key=lambda e: name_hash(e.image.name)", "key=lambda e: e.score",
          "sampler"),
        M("held-out pictures are trained on", "train += members[n:]", "train += members",
          "sampler"),
        M("another hash than the draw's", "name_hash(e.image.name)", "name_hash(str(e.score))",
          "mixture"),
    ],
    "nanoaes/tables.py": [
        M("UTF-16 needs its mark", 'if not encoding and b"\\0" in data', "if 0", "tables"),
        M("the mark is part of the first name", '.removeprefix("\\ufeff")', "", "tables"),
        M("a guessed encoding is not said", 'say(f"{file}: not UTF-8', 'str(f"{file}: not UTF-8',
          "tables"),
        M("the delimiter with most columns", "return len(wanted & {cell.strip().lower() for cell "
          "in cells}), len(cells)", "return len(cells), 0", "tables"),
        M("open quotes merge rows", 'if "\\n" in whole:', "if 0:", "tables"),
        M("a row's last line is its number", "line, last, whole = last + 1,",
          "line, last, whole = reader.line_num,", "tables"),
        M("names of columns by case", "[name.lower() for name in names], []", "names, []",
          "tables"),
        M("the first of two columns", "if len(found) > 1:", "if 0:", "tables"),
        M("a long header is quoted whole", "{short(', '.join(names))!r}", "{', '.join(names)!r}",
          "tables"),
        M("a long cell is quoted whole", "{short(cell, 40)!r} is not", "{cell!r} is not", "tables"),
        M("a decimal comma is a decimal point's end", 'float(cell.replace(",", "."))',
          'float(cell.partition(",")[0])', "tables"),
    ],
    "nanoaes/downloads.py": [
        M("AVA's splits swapped", "(image in tests) != is_test", "(image in tests) == is_test",
          "datasets"),
        M("the votes' spread is the sample's", "- first * first) / total\n",
          "- first * first) / (total - 1)\n", "downloads"),
        M("AVA's challenge is a number", "names.get(challenge, challenge)", "challenge",
          "downloads"),
        M("unmerged themes of the other split first",
          '(split, "test" if split == "train" else "train")', '("train", "test")', "downloads"),
        M("one layout of TAD66K", '_first(root, "labels/merge", "dataset/merge")',
          '(root / "labels/merge")', "downloads"),
        M("one folder of AADB's new test", '"AADB_newtest_originalSize", "AADB_newtest")',
          '"AADB_newtest_originalSize")', "downloads"),
        M("one folder of FLICKR-AES", '"40K", "FLICKR-AES-001/40K")', '"40K")', "downloads"),
        M("FLICKR-AES's splits overlap", '(name_hash(image) < TENTH) != (split == "test")',
          '(name_hash(image) < TENTH) and split == "train"', "downloads"),
        M("a fifth is tested", "2**256 // 10", "2**256 // 5", "downloads"),
        M("the workers' spread on 1 to 5", "/ len(v) / 5", "/ len(v)", "downloads"),
        M("one vote has no spread", "if len(v) > 1", "if v", "downloads"),
        M("FLICKR-AES from 0", '"FLICKR-AES", (0.2, 1)', '"FLICKR-AES", (0, 1)', "downloads"),
    ],
    "nanoaes/mixture.py": [
        M("a set without a ratio counts nothing", "Fraction(1) if r is None", "Fraction(0) if r "
          "is None", "mixture"),
        M("sets are drawn beyond their size", "min(s * whole / w for", "max(s * whole / w for",
          "mixture"),
        M("a limit of each set", "min(total, limit) if limit", "min(total, limit * len(sizes)) if "
          "limit", "mixture"),
        M("the first pictures are drawn", "key=lambda i: name_hash(names[i])", "key=lambda i: i",
          "mixture"),
        M("drawn pictures in the hash's order", "return sorted(sorted(", "return list(sorted(",
          "mixture"),
    ],
    "nanoaes/specs.py": [
        M("every comma parts", "(?=(?:{starts}):)", "", "specs"),
        M("a folder's year is a scale", "if name not in OWN and os.path.exists(_path(rest)):",
          "if 0:", "specs"),
        M("an infinite scale", "-math.inf < lo < hi < math.inf", "lo < hi", "specs"),
        M("a ratio of nothing", "if not (ratio := Fraction(found[2])):",
          "if (ratio := Fraction(found[2])) < 0:", "specs"),
        M("~ is a folder", "return os.path.expanduser(text.strip())", "return text", "specs"),
    ],
    "nanoaes/records.py": [
        M("a field twice is its last", "if len(row) < len(pairs):", "if 0:", "records"),
        M("a model's score before the truth", '("gt_score", "score", "messages")',
          '("score", "gt_score", "messages")', "records"),
        M("a row without a score ends the list", "bare += 1", "return", "records"),
        M("the user's words are the score", '== "assistant"]', '== "user"]', "records"),
        M("the first of several pictures", "if len(value) != 1:", "if not value:", "records"),
    ],
    "nanoaes/datasets.py": [
        M("a spread as wide as the scale", "most = width / 2 *", "most = width *", "datasets"),
        M("the spread stays native", "std /= width", "std /= 1", "datasets"),
        M("spreads of any smallness", "LEAST_SPREAD = 0.02", "LEAST_SPREAD = 0.0", "datasets"),
        M("no spread is a small one", "for e in examples if e.std]",
          "for e in examples if e.std is not None]", "datasets"),
        M("./a.jpg is another picture", 'os.path.normpath(image) if "/" in image else image',
          "image", "records"),
        M("the collector stays off", "            gc.enable()", "            pass", "datasets"),
        M("a ratio of a test set", 'split == "test" and any(ratios)', "0", "mixture"),
        M("each missing picture is said", "if not any(os.path.exists(e.image) for e in examples):",
          "if 0:", "mixture"),
        M("--columns is not handed on", "read_dataset(spec, split, named_columns(columns))",
          "read_dataset(spec, split)", "mixture"),
    ],
    "nanoaes/choices.py": [
        M("ties go to the model", "(of_k[a + e] - of_k[a]) / e", "of_k[a + e] - of_k[a]",
          "choices"),
        M("truths above are no obstacle", "fine = t <= t[rows, None]", "fine = t == t", "choices"),
        M("the best is the worst", "best_of(p, place, SIZES), best_of(-p, -place, SIZES)",
          "best_of(-p, -place, SIZES), best_of(p, place, SIZES)", "choices"),
        M("sets with unreadable answers are left out", "value = right / math.comb(n, k)",
          "value = right / max(1, math.comb(len(read), k))", "choices"),
        M("a picture stands beside itself", "beside[:, rows] -= v", "beside[:, rows] -= 0",
          "choices"),
        M("the margin is nothing", "far = np.abs(apart) > margin + ROUNDING",
          "far = np.abs(apart) > ROUNDING", "choices"),
        M("unreadable pairs are right", "known[i, rows] = (far @ read) * read[rows]",
          "known[i, rows] = far.sum(1)", "choices"),
        M("the influence is a picture's own", "return Measure(float(value), k * (mean - value), k)",
          "return Measure(float(value), mean - value, k)", "choices"),
        M("ends are not stretched", "return stretch * np.percentile(",
          "return np.percentile(", "choices"),
    ],
    "nanoaes/paired.py": [
        M("A - B", "difference\": b - a", "difference\": a - b", "paired"),
        M("strangers' draws", "drawn_a, drawn_b = (resamples(one, y, seed) for one in x)",
          "drawn_a, drawn_b = (resamples(one, y, seed + i) for i, one in enumerate(x))", "paired"),
        M("only A's influence", "(two.influence - one.influence)[None]", "two.influence[None]",
          "paired"),
        M("less is worse", "(lo > 0) != (key in BETTER_IF_LESS)", "lo > 0", "paired"),
        M("the pictures that moved least", "key=lambda row: -abs(", "key=lambda row: abs(",
          "paired"),
    ],
    "nanoaes/calibration.py": [
        M("judged by what it was fitted on", "not in labelled]", "not in ()]", "bench"),
        M("reversed maps", "bounds=([0, -np.inf], np.inf)", "bounds=([-9, -np.inf], np.inf)",
          "calibration"),
    ],
    "nanoaes/predictions.py": [
        M("any evaluation goes on", "if before == about:", "if before:", "bench"),
        M("none goes on", "if before == about:", "if False:", "bench"),
        M("an earlier one is replaced",
          "        set_aside(out.parent, [out.name, path.name, report.name])\n", "", "bench"),
        M("scores are no part of a set", "{example.image}\\0{example.score!r}", "{example.image}",
          "bench"),
    ],
    "nanoaes/metrics.py": [
        M("an unreadable answer gets the best score", "np.where(y >= border, 0.0, 1.0)",
          "np.where(y >= border, 1.0, 0.0)", "metrics"),
        M("an unreadable answer gets the truth", "np.where(y >= border, 0.0, 1.0)", "y", "metrics"),
        M("ties have the largest rank", "counts.cumsum(1) - (counts - 1) / 2", "counts.cumsum(1)",
          "metrics"),
        M("SRCC is PLCC", "values = _pearson(x, y), _spearman(_levels(x), _levels(y))",
          "values = _pearson(x, y), _pearson(x, y)", "metrics"),
        M("RMSE without its root", "return np.sqrt(np.mean((x - y) ** 2, axis=axis))",
          "return np.mean((x - y) ** 2, axis=axis)", "metrics"),
        M("a 5 is high", "(hi - lo) + 1e-9", "(hi - lo) - 1e-9", "metrics"),
        M("a set without order leaves the mean", "_mean([m[key] or 0.0 for m in sets])",
          "_mean([m[key] for m in sets if m[key]])", "metrics"),
        M("readable answers are counted as failures", "int((~readable).sum())",
          "int(readable.sum())", "metrics"),
        M("a 90 % interval", "(2.5, 97.5)", "(5, 95)", "metrics"),
        M("the ratio of spreads upside down", "x.std() / y.std()", "y.std() / x.std()", "metrics"),
        M("all sets are in-domain", 'if domains[s] == "in"]', "if domains[s]]", "metrics"),
        M("tau-c", 'variant="b"', 'variant="c"', "metrics"),
        M("an interval without its estimate", "float(min(lo, estimate))", "float(lo)", "metrics"),
        M("SRCC with PLCC's interval", "_resampled(_spearman, *levels, seed)",
          "_resampled(_pearson, x, y, seed)", "metrics"),
        M("the bootstrap has one seed", "rng=np.random.default_rng(seed)",
          "rng=np.random.default_rng(0)", "metrics"),
    ],
    "nanoaes/optimize.py": [
        M("gradients are never zeroed", "    optimizer.zero_grad()\n", "", "loop"),
        M("the rate is never set", 'group["lr"] = lr', 'group["lr"] = group["lr"]', "loop"),
        M("the norm has no limit", "clip_grads_with_norm_(trained.values(), max_norm, norm)",
          "clip_grads_with_norm_(trained.values(), 1e9, norm)", "loop"),
        M("NaN passes", "if not all(map(math.isfinite, values)):", "if values is None:",
          "train:finite"),
        M("the norm after clipping is told", "norm.float()]",
          "norm.float().clamp(max=max_norm)]", "loop"),
    ],
    "nanoaes/images.py": [
        M("a pipe is opened", "if not stat.S_ISREG(path.stat().st_mode):", "if not path.exists():",
          "images"),
        M("only the usual errors of a decoder", "except Exception as error:",
          "except OSError as error:", "images"),
        M("a large JPEG is decoded whole", "image.draft(None, (width // 2, height // 2))", "pass",
          "images"),
        M("a JPEG has no limit", "(REDUCED * limit if jpeg else limit)",
          "(1e99 * limit if jpeg else limit)", "images"),
        M("any picture may be three times too large", "(REDUCED * limit if jpeg else limit)",
          "(REDUCED * limit)", "images"),
        M("a thumbnail is a picture", "DNG_VERSION in image.tag_v2 or", "", "images"),
        M("whole numbers have a white", 'if image.mode in ("I", "F")', 'if image.mode in ("F",)',
          "images"),
        M("a PGM of 16 bits has none", 'and image.format != "PPM"', "", "colour"),
        M("12 bits in 16 are black", "        if deep:\n", "        if 0:\n", "colour"),
    ],
    "nanoaes/colour.py": [
        M("profiles are ignored", "for mode in modes if profile else ():", "for mode in ():",
          "colour"),
        M("only RGB's profile counts", '"CMYK": ("CMYK",)}', "}", "colour"),
        M("sRGB is converted to sRGB", "return None if mode == \"RGB\" and "
          "_changes_nothing(transform) else transform", "return transform", "colour"),
        M("grey of 12 bits in 16 is black", "refuse_dark(int(levels.max()), 4096)", "pass",
          "colour"),
        M("a black picture is refused", "if 0 < brightest < white:", "if brightest < white:",
          "colour"),
    ],
    "nanoaes/index.py": [
        M("another size is the same picture", '"size": seen.st_size', '"size": 1', "index"),
        M("another time is the same picture", '"mtime_ns": seen.st_mtime_ns', '"mtime_ns": 1',
          "index"),
        M("what was bad is believed", "            if known == row:\n",
          "            if known and known | {\"problem\": None} == row:\n", "index"),
        M("the bad ones come last", "self._decode(again | new)", "self._decode(new | again)",
          "index"),
        M("rows are written at the end", "if len(fresh) == ROWS:", "if 0:", "index"),
        M("an interruption loses rows", "        finally:\n            self._write(fresh)",
          "        except ZeroDivisionError:\n            pass\n        self._write(fresh)",
          "index"),
        M("a torn row ends the run", "with suppress(ValueError, KeyError, TypeError):",
          "with suppress(KeyError):", "index"),
        M("relative paths are others", "os.path.abspath(path)", "str(path)", "index"),
    ],
    "nanoaes/ahead.py": [
        M("nothing is ahead", "if len(begun) > n:", "if begun:", "ahead"),
        M("everything is ahead", "if len(begun) > n:", "if len(begun) > 10 * n:", "ahead"),
        M("threads are left behind", "pool.shutdown(cancel_futures=True)", "pass", "ahead"),
        M("whole pictures wait", "fit(load_image(path))", "load_image(path)", "ahead"),
    ],
    "nanoaes/overlap.py": [
        M("links lead elsewhere", "os.stat(path)", "os.lstat(path)", "overlap"),
        M("a name is enough", "(path.name, seen.st_size)", "(path.name, 0)", "overlap"),
        M("a size is enough", "(path.name, seen.st_size)", '("", seen.st_size)', "overlap"),
        M("colours do not count", "<= LEVELS).any()", "<= 255).any()", "overlap"),
        M("looks always count", 'if by == "hash" else None', "if by else None", "overlap"),
    ],
    "nanoaes/evaluation.py": [
        M("the worst checkpoint is kept", "if score >= self.score and first():",
          "if score <= self.score and first():", "best"),
        M("of equal ones the earlier", "if score >= self.score and first():",
          "if score > self.score and first():", "best"),
        M("best by PLCC alone", 'score = mean["strict_plcc"] + mean["strict_srcc"]',
          'score = 2 * mean["strict_plcc"]', "best"),
        M("unreadable answers are left out of the choice",
          'score = mean["strict_plcc"] + mean["strict_srcc"]',
          'score = mean["plcc"] + mean["srcc"]', "best"),
        M("the cold start is no candidate", "row, self.score = self._look(policy, 0)",
          "row, _ = self._look(policy, 0)", "best"),
        M("a failed save is the best", "if saving.done:", "if True:", "best"),
        M("the bar is never raised", "self.score, self.step = score, step", "self.step = step",
          "best"),
        M("the bar is always the last one's", "        if score >= self.score and first():",
          "        best, self.score = self.score, score\n        if score >= best and first():",
          "best"),
        M("chosen by out-of-domain sets", 'keep_bar=False)["mean"]["in"]',
          'keep_bar=False)["mean"]["all"]', "best"),
        M("held-out answers are sampled", "temperature: float = 0.0, seed",
          "temperature: float = 1.0, seed", "loop"),
        M("pictures of the first places", "(examples[i].image for i in places)",
          "(examples[i].image for i in range(len(places)))", "eval"),
        M("the cold start is not saved",
          "            self._hand_out(policy, 0, self.score)\n            append_row",
          "            append_row", "best"),
        M("no row of the cold start",
          '        append_row(self.history, {"step": 0, **row})\n', "", "best"),
        M("in-domain and out-of-domain swapped", '(("in", test_in), ("ood", test_ood))',
          '(("in", test_ood), ("ood", test_in))', "eval"),
        M("every stage is the first one", "vlm = load_whole(path, cfg)",
          "vlm = load_whole(list(stages.values())[0], cfg)", "eval"),
    ],
    "nanoaes/readout.py": [
        M("every batch with the first one's numbers", "uniforms(reading.seed, 0, places,",
          "uniforms(reading.seed, 0, range(len(places)),", "eval"),
        M("the last batch is lost", "    if batch:\n        yield places, batch\n", "", "eval"),
        M("a batch beyond the budget", "> cached(reading.tokens):",
          "> cached(reading.tokens) * 100:", "eval"),
    ],
    "eval.py": [
        M("held-out pictures may be test pictures", "[e.image for e in seen]",
          "[e.image for e in hold_out(seen, cfg.heldout)[0]]", "overlap"),
    ],
    "train_sft.py": [
        M("the cold start sees the first pictures", "for path, _ in mine(step))",
          "for path, _ in mine(0))", "sft"),
        M("the cold start's epochs are alike",
          "np.concatenate([rng.permutation(len(critiques)) for _ in range(cfg.epochs)])",
          "np.tile(rng.permutation(len(critiques)), cfg.epochs)", "sft"),
        M("one epoch, whatever is asked", "for _ in range(cfg.epochs)", "for _ in range(1)", "sft"),
        M("critiques in the order of their file", "rng.permutation(len(critiques))",
          "np.arange(len(critiques))", "sft"),
        M("the cold start's decay is ignored", "weight_decay=cfg.weight_decay", "weight_decay=0.0",
          "sft"),
        M("the cold start's limit is ignored", "max_grad_norm=cfg.max_grad_norm",
          "max_grad_norm=1.0", "sft"),
    ],
    "nanoaes/leak.py": [
        M("apertures are scores", '_OTHER.sub(" _ ", " ".join(said))', '" ".join(said)', "leak"),
        M("music has a score", '_SCORE.sub("_", part) if', "part if", "leak"),
        M("figures of one script", "if c.isdecimal() else c", "if c.isascii() and c.isdecimal() "
          "else c", "leak"),
        M("an endless number costs its square", 'text = re.sub(r"\\d{7,}", "_", text)',
          "text = text", "leak"),
    ],
    "nanoaes/unfit.py": [
        M("a refusal is learned", "if _REFUSAL.match(critique) or ", "if ", "critiques"),
        M("a refusal anywhere in the text", "_REFUSAL.match(", "_REFUSAL.search(", "critiques"),
    ],
    "nanoaes/critiques.py": [
        M("an earlier label counts", "or labels[key[0]] == key[1]]", "or labels]", "cot"),
        M("a relative path spelled otherwise is another picture",
          "not path.exists() else path).resolve()", "not path.exists() else path)", "cot"),
        M("a reply's answer need not be its label", "abs(answered - label) > AGREE",
          "abs(answered - label) > 1", "critiques"),
        M("the scale is ignored", "return normalise(value, scale)",
          "return normalise(value, UNIT)", "critiques"),
        M("rejected critiques are learned", "if _kept(row):", "if _kept(row) in (True, False):",
          "sft"),
    ],
    "train_rapo.py": [
        M("a resumed run sees the first pictures", "for step in range(begun, steps) for e",
          "for step in range(steps) for e", "resume going_on"),
        M("pictures of the next step", "for e in drawn(step)[", "for e in drawn(step + 1)[",
          "loop"),
        M("eps_low and eps_high swapped", "eps_low=cfg.eps_low, eps_high=cfg.eps_high",
          "eps_low=cfg.eps_high, eps_high=cfg.eps_low", "loop"),
        M("greedy rollouts", "max_new_tokens=limit, temperature=cfg.temperature",
          "max_new_tokens=limit, temperature=0", "loop"),
        M("rollouts at temperature 1", "max_new_tokens=limit, temperature=cfg.temperature",
          "max_new_tokens=limit, temperature=1.0", "loop"),
        M("log-probs at temperature 1", "rolls.mask[rows], cfg.temperature, cfg.backend",
          "rolls.mask[rows], 1.0, cfg.backend", "loop"),
        M("every step draws alike", "uniforms(cfg.seed, step, ", "uniforms(cfg.seed, 0, ", "loop"),
        M("every seed draws alike", "uniforms(cfg.seed, step, ", "uniforms(0, step, ", "loop"),
        M("every seed shows the same pictures", "cfg.images, cfg.seed)", "cfg.images)", "loop"),
        M("every step shows the same pictures", "sampler.indices(step)", "sampler.indices(0)",
          "loop"),
        M("logp_old from the rollout", "Tokens(old, logp_ref[i] ",
          "Tokens(rolls.logp[rows][mask], logp_ref[i] ", "loop"),
        M("logp_old of the last update", "        sums: dict[str, Tensor] = {}\n",
          "        sums, known = {}, []\n", "loop"),
        M("the policy is its own reference", "logp_ref[i] if logp_ref else old", "old", "loop"),
        M("no KL", "beta=cfg.beta,", "beta=0.0,", "loop"),
        M("the rate stays the first", "learning_rate(cfg, step, steps)",
          "learning_rate(cfg, 0, steps)", "loop"),
        M("one update, whatever is asked", "for _ in range(cfg.updates):", "for _ in range(1):",
          "loop"),
        M("no weight decay", "weight_decay=cfg.weight_decay", "weight_decay=0.0", "loop"),
        M("no limit of the norm", "max_norm=cfg.max_grad_norm", "max_norm=1e9", "loop"),
        M("--advantage is ignored", "advantages(judged.rewards.total, cfg.advantage)",
          "advantages(judged.rewards.total)", "loop"),
        M("--mask_truncated is ignored", "~rolls.truncated if cfg.mask_truncated else torch",
          "torch", "loop"),
        M("ended answers are left out", "~rolls.truncated if cfg.mask_truncated",
          "rolls.truncated if cfg.mask_truncated", "loop"),
        M("a mean per micro-batch, in RAPO", "weight[rows][mask]", "token_weights(mask)[mask]",
          "loop"),
        M("another picture's advantage", "advantage[rows][..., None]",
          "advantage[: len(rows)][..., None]", "loop"),
        M("another picture's weights", "weight[rows][mask]", "weight[: len(rows)][mask]", "loop"),
        M("the last step is not looked at", "cfg.eval_every == 0 or step + 1 == steps:",
          "cfg.eval_every == 0:", "loop"),
        M("looks only at the end", "if (step + 1) % cfg.eval_every == 0 or step + 1 == steps:",
          "if step + 1 == steps:", "loop"),
        M("no look before the first step", "        best.begin(models.speaker)\n", "", "loop"),
        M("a warning at every step", "said = warn_of_collapse(row, said)",
          "warn_of_collapse(row, said)", "loop"),
        M("the entropy is a mean over tokens", "(known[i].weight * entropy).sum()",
          "entropy.mean()", "loop"),
        M("the updates' numbers are added up", "    for _ in range(cfg.updates):\n"
          "        sums: dict[str, Tensor] = {}\n", "    sums: dict[str, Tensor] = {}\n"
          "    for _ in range(cfg.updates):\n", "loop"),
        M("the gap of the last micro-batch", "add(gap, rollout_gap(old, ",
          "gap.clear() or add(gap, rollout_gap(old, ", "loop"),
    ],
    "nanoaes/schedule.py": [
        M("the cosine forgets the warm-up", "math.pi * (step - warmup)", "math.pi * step", "sft"),
        M("linear, no cosine",
          "peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))",
          "peak * (steps - step) / (steps - warmup)", "sft"),
        M("the rate never falls", "cfg.lr * (steps - step) / (steps - cfg.warmup)", "cfg.lr",
          "loop"),
        M("half an epoch is none", "math.ceil(cfg.epochs", "math.floor(cfg.epochs", "loop"),
    ],
    "nanoaes/models.py": [
        M("the cold start always trains the tower", " and not cfg.train_vision", " and False",
          "models"),
        M("the cold start never trains the tower", " and not cfg.train_vision", "", "models"),
        M("the policy is handed over as reference",
          "copy.deepcopy(speaker).requires_grad_(False) if reference else None",
          "speaker if reference else None", "loop"),
    ],
    "nanoaes/merging.py": [
        M("merged without the scale", "b, a, alpha=adapter.alpha / adapter.rank).to", "b, a).to",
          "lora"),
        M("rounded before it is added", "adapter.lora_B.detach().to(wide)",
          "adapter.lora_B.detach().to(w.dtype).to(wide)", "lora"),
    ],
    "nanoaes/lora.py": [
        M("alpha is not divided by the rank", "* (self.alpha / self.rank)", "* self.alpha", "lora"),
        M("adapters in the model's dtype", '{"dtype": torch.float32, "device"',
          '{"dtype": base.weight.dtype, "device"', "lora"),
        M("the weights around learn too", "    hf.requires_grad_(False)\n", "", "lora"),
        M("the vision tower without being asked",
          '*(["model.visual."] if vision else [])', '"model.visual."', "lora"),
        M("every seed draws the same adapters", "manual_seed(seed)", "manual_seed(0)", "lora"),
        M("torch's own generator draws", "a=math.sqrt(5), generator=generator)",
          "a=math.sqrt(5))", "lora"),
        M("a wider start than PEFT's", "a=math.sqrt(5)", "a=0", "lora"),
        M("the reference goes on after it", "            adapter.as_begun = was\n",
          "            pass\n", "lora"),
        M("the reference is the model now", "            adapter.as_begun = True\n",
          "            pass\n", "lora"),
        M("where adapters began moves with them", "adapter.lora_A.detach().clone()",
          "adapter.lora_A.detach()", "lora"),
    ],
    "nanoaes/adapters.py": [
        M("DoRA is read as LoRA", "odd = {k: v for k, v in config.items() if v and",
          "odd = {k: v for k, v in config.items() if 0 and", "adapters"),
        M("biases are passed over", '        odd["bias"] = config["bias"]\n', "        pass\n",
          "adapters"),
        M("PEFT's exclude_modules is ignored", " and not _means(left_out, n)", "", "adapters"),
        M("an expression may match a part", "re.fullmatch(rule, n)", "re.search(rule, n)",
          "adapters"),
        M("short names that mean other layers too", "ends if meant == found.keys() else",
          "ends if 1 else", "adapters"),
        M("tensors of no layer are passed over", "sorted(found.keys() - shapes)", "[]", "adapters"),
        M("NaN is loaded", "if not value.isfinite().all():", "if 0:", "adapters"),
        M("a folder beside the adapters is not seen", "        name = path / name\n",
          "        pass\n", "adapters"),
    ],
    "nanoaes/folder.py": [
        M("fp32 where the source is bf16", "min(hf.dtype, folder.stored or hf.dtype, key",
          "min(hf.dtype, hf.dtype, key", "folder"),
        M("saved as wide as the source", "min(hf.dtype, folder.stored or hf.dtype, key",
          "max(hf.dtype, folder.stored or hf.dtype, key", "folder"),
        M("adapters are asked as their model is", 'path = _with(top, path, "nanoaes.json")',
          'path = _with(path, path, "nanoaes.json")', "adapters"),
        M("adapters stop where their model does", '_with(top, path, "generation_config.json")',
          "path", "adapters"),
        M("their pictures are their model's", "for folder in (path, top)", "for folder in (path,)",
          "adapters"),
    ],
    "nanoaes/checks.py": [
        M("small tensors count as much", "+= math.prod(part.get_shape())", "+= 1", "folder"),
    ],
    "nanoaes/found.py": [
        M("a folder that was seen is walked again", "if (at.st_dev, at.st_ino) in self.folders:",
          "if False:", "found"),
        M("hidden files are pictures", ' if not name.startswith(".")]', "]", "found"),
        M("a link's file is a second one", "if real in self.files:", "if str(path) in self.files:",
          "found"),
        M("a pipe is opened", "regular = stat.S_ISREG(os.stat(path).st_mode)", "regular = True",
          "found"),
    ],
    "nanoaes/ledger.py": [
        M("a changed picture is not scored again", "if line is None or line.stamp != now:",
          "if line is None:", "ledger"),
        M("a moved picture is scored again",
          'same = self.contents.get(digest(path) or "") if now.size in sizes else None',
          "same = None", "ledger"),
        M("a file of something else is cut", "elif not self.end and not _torn(text):",
          "elif False:", "score"),
        M("scores of two models are mixed",
          'if row["by"].rpartition("@")[2] != self.by.rpartition("@")[2]:', "if False:", "ledger"),
        M("lines are sought a byte too early", "len(json.dumps(row)) + 1)", "len(json.dumps(row)))",
          "ledger"),
    ],
    "nanoaes/scoring.py": [
        M("a batch's answers go to other pictures", "told |= zip(batch, ",
          "told |= zip(sorted(batch), ", "score"),
        M("the cache is overfilled", "token_batches(lengths, cached(reading.tokens))",
          "token_batches(lengths, 2**40)", "score"),
        M("another question has the same signature", "vlm.described(reading.drawn_at), ", "",
          "score"),
        M("another readout has the same signature", "reading.readout, ", "", "score"),
        M("samples are of the place, not of the picture", 'int((sights[i].digest or "0")[:8], 16)',
          "i", "score"),
    ],
    "nanoaes/bursts.py": [
        M("only neighbours in time are compared", "max(i - 1 - BACK, -1)", "i - 2", "standing"),
        M("two bursts that meet stay two", "a, b = sorted((first(i), first(j)))", "a, b = j, i",
          "standing"),
        M("fractions of a second are lost", 'float(f"0.{digits or 0}")', "0.0", "standing"),
    ],
    "nanoaes/standing.py": [
        M("a picture is better than itself", "(rankdata(scores) - 0.5)", "rankdata(scores)",
          "standing"),
        M("a border belongs to the fewer stars", "line.score >= edge", "line.score > edge",
          "standing"),
        M("the first bursts are kept", "s.place <= keep", "s.burst <= keep", "standing"),
    ],
    "nanoaes/xmp.py": [
        M("a sidecar is replaced", 'path.open("xb")', 'path.open("wb")', "standing"),
        M("a dry run writes", "if dry_run:", "if False:", "standing"),
    ],
    "nanoaes/targets.py": [
        M("another's CSV is replaced", '_refuse_other(out, ",".join(COLUMNS), "--out")', "pass",
          "score"),
    ],
    "nanoaes/page/sheet.py": [
        M("one word of a search is enough", "words.every(", "words.some(", "sheet"),
        M("a file's name is markup", "{inline(shot.path.name)}", "{shot.path.name}", "sheet"),
    ],
    "nanoaes/runs.py": [
        M("an orphan keeps a file's lock", "signed=False)\n        _held[key] = file\n",
          "signed=False)\n", "runs"),
    ],
    "nanoaes/judge.py": [
        M("what ended is counted as cut", "sum(a.cut for a in answers)",
          "sum(not a.cut for a in answers)", "loop"),
        M("unreadable answers are spread", "readable = judged.rewards, judged.scores[judged.valid]",
          "readable = judged.rewards, judged.scores.flatten()", "loop"),
        M("an unreadable answer is a 0", "torch.tensor([s is not None for s in read])",
          "torch.tensor([True for s in read])", "train:judge"),
        M("two sets are one", "names.index(e.dataset) for", "0 for", "train:judge"),
        M("--soft_truth is ignored", "spread if cfg.soft_truth else None", "None", "train:judge"),
        M("weights of rewards swapped", "w_relative=cfg.w_relative, w_absolute=cfg.w_absolute",
          "w_relative=cfg.w_absolute, w_absolute=cfg.w_relative", "train:judge"),
    ],
    "nanoaes/config.py": [
        M("a reference that nobody needs", 'self.reference if self.beta else ""', "self.reference",
          "loop"),
    ],
}
MUTANTS = [Mutant(m.what, m.old, m.new, m.tests, m.equivalent, file)
           for file, mutants in TABLE.items() for m in mutants]


def mutated(m: Mutant) -> str:
    """The whole file with one thing wrong.

    Raises:
        SystemExit: the text is not there exactly once, nothing changes, or it is no Python.
    """
    text = (ROOT / m.file).read_text(encoding="utf-8")
    if text.count(m.old) != 1:
        raise SystemExit(f"{m.file}: {m.what!r} is found {text.count(m.old)} times, not once; "
                         f"correct it in {Path(__file__).name}: {m.old!r}")
    wrong = text.replace(m.old, m.new)
    try:
        compile(wrong, m.file, "exec")
    except SyntaxError as error:
        raise SystemExit(f"{m.file}: {m.what!r} is no Python: {error}") from None
    return wrong


def copy_tree(to: Path) -> Path:
    """What git tracks, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True,
                            text=True).stdout
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)
    return to


def import_once() -> None:
    """What takes most of a short test's time; each mutant's process is a fork of this one."""
    # No bytecode: a file that changes twice in a second, at the same size, would keep its old one.
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path = [p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "bench")]
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForImageTextToText, AutoTokenizer  # noqa: F401
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl  # noqa: F401
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl  # noqa: F401


class Trial:
    """A process in which the tests of one mutant run, or without a mutant some tests."""

    def __init__(self, tree: Path, tests: str, mutant: Mutant | None = None):
        self.tree, self.tests, self.mutant, self.begun = tree, tests, mutant, time.perf_counter()
        self.log = tree.with_name(tree.name + ".log")
        if mutant:
            (tree / mutant.file).write_text(mutated(mutant), encoding="utf-8")
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            self._child()

    def _child(self) -> None:
        """Leaves with pytest's exit code."""
        import pytest

        code = 99
        try:
            os.setsid()  # so that what tests have started ends with them
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(self.tree)
            for name, _, k in (part.partition(":") for part in self.tests.split()):
                code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=line",
                                        f"tests/test_{name}.py", *(["-k", k] if k else [])]))
                if code:
                    break
        finally:
            sys.stdout.flush()
            os._exit(code)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def ended(self, limit: float) -> str | None:
        """"" if all pass, else the test that fails, or that there was no end; None: not yet.

        Raises:
            SystemExit: pytest could not run the tests.
        """
        process, status = os.waitpid(self.process, os.WNOHANG)
        late = not process and self.seconds > limit
        if not process and not late:
            return None
        if late:
            os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        if self.mutant:
            shutil.copyfile(ROOT / self.mutant.file, self.tree / self.mutant.file)
        if late:
            return f"no end after {limit:g} s"
        code, told = os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace")
        found = re.search(r"^(?:FAILED|ERROR) (tests/\S+::\S+)", told, re.MULTILINE)
        if code == 0 or (code == 1 and found):
            return found[1] if code else ""
        what = self.mutant.what if self.mutant else "without a mutation"
        raise SystemExit(f"{what}: {self.tests} cannot run (exit code {code}): {told[-2000:]}")


def trials(todo: list[tuple[str, Mutant | None]], trees: list[Path], limit: float
           ) -> Iterator[tuple[Trial, str]]:
    """(trial, what ended it) for each (tests, mutant), as they end; one a tree side by side."""
    free, left, running = list(trees), list(todo), []
    while left or running:
        while left and free:
            running.append(Trial(free.pop(), *left.pop(0)))
        time.sleep(0.05)
        for trial in list(running):
            if (how := trial.ended(limit)) is not None:
                running.remove(trial)
                free.append(trial.tree)
                yield trial, how


def main() -> int:
    """Number of survivors that the table does not explain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression: name, file or text")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a mutant")
    args = parser.parse_args()
    for m in MUTANTS:
        mutated(m)
    chosen = [m for m in MUTANTS if re.search(args.only, f"{m.what}\n{m.file}\n{m.old}\n{m.new}")]
    if not chosen:
        raise SystemExit(f"--only {args.only}: no mutant is like that")
    import_once()
    killed, survivors, equivalent = 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        trees = [copy_tree(Path(folder) / str(job)) for job in range(args.jobs)]
        names = sorted({name for m in chosen for name in m.tests.split()})
        for trial, how in trials([(name, None) for name in names], trees, 600):
            print(f"without a mutation: {trial.tests} {how or 'passes'}", flush=True)
            if how:
                raise SystemExit("the tests have to pass, or a kill means nothing")
        for trial, how in trials([(m.tests, m) for m in chosen], trees, args.limit):
            m = trial.mutant
            killed += bool(how)
            if not how:
                (equivalent if m.equivalent else survivors).append(f"{m.file}: {m.what}")
                how = f"equivalent: {m.equivalent}" if m.equivalent else "SURVIVES"
            print(f"{m.file:20s} {m.what:47s} {trial.seconds:5.1f} s  {how}", flush=True)
    print(json.dumps({"mutants": len(chosen), "killed": killed, "equivalent": equivalent,
                      "survivors": survivors}))
    return len(survivors)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
