"""Finding the program in a completion.

Reasoning between `<think>` tags is dropped first; reasoning that never ends holds no answer. Then,
among the fenced blocks, the best one is taken in this order of importance:

1. it looks like a whole program of the wanted language (`main`, or a script that reads its input),
   then like part of one, then like neither;
2. its fence is closed;
3. its tag names exactly the wanted language;
4. it comes last: models that correct themselves do so further down.

A block tagged as another language counts only if it looks like a whole program of the wanted one
(tags are often wrong); C and C++ pass for each other. Without any fence the completion itself is
the answer if code begins and ends it, prose around it cut away. No code is run or parsed to decide.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haloforge.schema import Problem
from haloforge.verify.toolchains import default_language, language_of, languages

C_FAMILY = ("cpp", "c")
BRACES = (*C_FAMILY, "rust", "go", "java", "javascript")
NEUTRAL_TAGS = {"", "text", "txt", "plain", "plaintext", "code", "none", "solution", "answer"}
END_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")

OPEN = re.compile(r"^(?P<before>(?:(?!```|~~~).)*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
INLINE = re.compile(r"```[ \t]*([\w+#.-]*)[ \t]+([^`]+?)[ \t]*```")

C_PROGRAM = re.compile(r"^(?!\s*(?:pub\s+)?(?:fn|func|public)\b)[^/\n]*\bmain\s*\(", re.M)
C_PART = re.compile(
    r"^\s*#\s*include\b|^\s*using\s+namespace\b|^\s*template\s*<|"
    # A function's head. Of lines before its own one at most is looked at, and none twice: else a
    # long text of words alone would take minutes.
    r"^(?:[\w:<>*&,]|[^\S\n])*+(?:(?<=[^\n])|\n)\([^)\n]*\)\s*\{",
    re.M,
)
CPP_ONLY = re.compile(
    r"\bstd::|\busing\s+namespace\b|\btemplate\s*<|\bclass\s+\w+|\bcout\b|\bcin\b|"
    r"^\s*#\s*include\s*<(?:\w+|bits/stdc\+\+\.h)>",
    re.M,
)
PYTHON_PROGRAM = re.compile(
    r"\binput\s*\(|\bsys\.stdin\b|\bopen\s*\(\s*0|^from sys import .*\bstdin\b|/dev/stdin", re.M
)
PYTHON_PART = re.compile(
    r"^\s*(?:async\s+)?def \w+\s*\(|^\s*class \w+.*:|^\s*import \w|^\s*from [\w.]+ import |"
    r"^\s*print\s*\(",
    re.M,
)

# A whole program: patterns of which each is found after the one before; and a part of one. None may
# begin at many places and look from each to the end of the text.
OTHERS = {
    "rust": (
        (re.compile(r"^\s*(?:pub\s+)?fn\s+main\s*\(", re.M),),
        re.compile(r"^\s*(?:pub\s+)?fn\s+\w+|^\s*use\s+\w+::|^\s*impl\b|\bprintln!", re.M),
    ),
    "go": (
        (re.compile(r"^package\s+main\b", re.M), re.compile(r"^func\s+main\s*\(", re.M)),
        re.compile(r"^package\s+\w+\s*$|^func\s+(?:\(\w[^)\n]*\)\s*)?\w+\s*\(", re.M),
    ),
    "java": (
        (
            re.compile(r"\bclass\s+\w"),
            re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\("),
        ),
        re.compile(
            r"^\s*import\s+java\b|^\s*public\s+(?:(?:abstract|final|sealed|static|strictfp)\s+)*"
            r"class\b|\bSystem\.out\.",
            re.M,
        ),
    ),
    "javascript": (
        (
            re.compile(
                r"\bprocess\.stdin\b|\breadFileSync\s*\(|\brequire\s*\(\s*['\"](?:node:)?readline"
            ),
        ),
        re.compile(
            r"\bconsole\.log\s*\(|\brequire\s*\(\s*['\"]|^\s*(?:async\s+)?function\b[^\n]*\{|"
            r"^\s*(?:const|let)\s+[\w{\[]",
            re.M,
        ),
    ),
}

# One line of code, to cut away the prose around an answer that has no fence.
C_LINE = re.compile(
    r"^\s*(?:#\s*(?:include|define|undef|pragma|ifn?def|if|else|endif|line)\b|"
    r"//|/\*|\*/|using\b|template\s*<|package\s+\w+\s*$|import\s+[\"(]|func\s+\w+\s*\()|"
    r"[;{}]\s*(?://.*|\*/\s*)?$"
)
PYTHON_LINE = re.compile(
    r"^(?:\s+\S.*|#.*|@\w.*|[\])}'\"].*|import \w[\w., ]*|from [\w.]+ import .*|"
    r"(?:async )?def \w+\s*\(.*|class \w+.*:|(?:if|elif|for|while|with|match)\b.*:(?:.*;)?|"
    r"(?:else|try|finally)\s*:|except\b.*:|"
    r"[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*\s*(?:[-+*/%]|//)?=[^=].*|"
    r"[A-Za-z_][\w.]*+(?:\[.*\][\w.]*)?\(.*)$"
)


@dataclass(frozen=True)
class Extracted:
    """An answer's code, and its language as the fence or the code itself tells."""

    code: str
    language: str | None


@dataclass(frozen=True)
class _Block:
    tag: str
    code: str
    closed: bool


def answer_of(
    sample: Mapping[str, Any], problem: Problem, verifier: str, own: bool
) -> Extracted | None:
    """The code of a sample: its `code` where that is given, else what is found in `completion`;
    None where it has none. `verifier` is a toolchain's name or `auto`.

    A verifier of the user's `own` takes any block where the problem is in a language that is none
    of ours.
    """
    wanted = default_language(verifier, problem.language)
    if sample.get("code") is not None:
        return as_it_stands(sample["code"], wanted)
    if problem.prefix is not None:
        return as_it_stands(sample["completion"], wanted)
    if own and problem.language and not language_of(problem.language):
        return last_block(sample["completion"])
    answer = extract(sample["completion"], wanted)
    return answer or last_block(sample["completion"]) if own else answer


def as_it_stands(text: str, language: str | None) -> Extracted | None:
    """The whole of `text` as code, in `language` or in what it seems to be; None for blanks."""
    return Extracted(text, language or guess_language(text)) if text.strip() else None


def extract(completion: str, language: str | None) -> Extracted | None:
    """The program in `completion`, in `language` where one is wanted; None if there is no code."""
    text = said(completion)
    blocks = _blocks(text)
    if not blocks:
        return _unfenced(text, language)
    best: tuple[tuple[int, bool, bool, int], Extracted] | None = None
    for index, block in enumerate(blocks):
        found = _language(block, language)
        if found is None or not block.code.strip():
            continue
        wanted = language or found
        exact = language_of(block.tag) == wanted
        key = (program_likeness(block.code, found), block.closed, exact, index)
        if best is None or key > best[0]:
            best = (key, Extracted(block.code, found))
    return best[1] if best else None


def last_block(completion: str) -> Extracted | None:
    """The last fenced block, whatever its tag; None where there is none."""
    blocks = [block for block in _blocks(said(completion)) if block.code.strip()]
    return Extracted(blocks[-1].code, None) if blocks else None


def program_likeness(code: str, language: str) -> int:
    """2 for what looks like a whole program of `language`, 1 for part of one, 0 for neither."""
    code = _squeezed(code)
    if language in OTHERS:
        program, part = OTHERS[language]
    elif language in C_FAMILY:
        program, part = (C_PROGRAM,), C_PART
    else:
        program, part = (PYTHON_PROGRAM,), PYTHON_PART
    if _in_turn(program, code):
        return 2
    return 1 if part.search(code) else 0


def _in_turn(patterns: tuple[re.Pattern[str], ...], code: str) -> bool:
    place = 0
    for pattern in patterns:
        found = pattern.search(code, place)
        if found is None:
            return False
        place = found.end()
    return True


def guess_language(code: str) -> str | None:
    """The language that untagged code seems to be in."""
    code = _squeezed(code)
    for language in OTHERS:
        if program_likeness(code, language) == 2:
            return language
    in_c = max(
        program_likeness(code, "c"), 2 * bool(re.search(r"^\s*#\s*include\s*[<\"]", code, re.M))
    )
    in_python = program_likeness(code, "python")
    if in_c > in_python or (in_c and code.rstrip().endswith("}")):
        return "cpp" if CPP_ONLY.search(code) else "c"
    if in_python:
        return "python"
    return next((other for other in OTHERS if program_likeness(code, other)), None)


def _squeezed(code: str) -> str:
    """`code` with one empty line for many, each of which a pattern would begin at anew."""
    return re.sub(r"\n\s*\n", "\n\n", code)


def said(completion: str) -> str:
    """The completion without reasoning and without what follows an end-of-turn mark."""
    text = completion.replace("\r\n", "\n")
    for mark in END_MARKS:
        text = text.split(mark, 1)[0]
    text = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.S)
    return text.rsplit("</think>", 1)[-1]  # templates may open the tag in the prompt


def _blocks(text: str) -> list[_Block]:
    """Every fenced block in order; an unclosed one ends where the next begins, or with the text."""
    blocks: list[_Block] = []
    opened: tuple[str, str, int] | None = None  # fence, tag, indentation
    lines: list[str] = []
    before: list[str] = []

    def close(closed: bool) -> None:
        nonlocal opened, lines
        if opened:
            blocks.append(_block(opened[1], lines, opened[2], closed))
        opened, lines = None, []

    for line in text.split("\n"):
        match = OPEN.match(line)
        if match is None:
            (lines if opened else before).append(line)
            continue
        info, head = match["info"].strip(), match["before"]
        if opened is None:
            indent = len(head) if not head.strip() else 0
            opened = (match["fence"], info, indent)
            if not blocks and not info and _code_before(before, text):
                # The prompt opened the fence, so the completion begins inside it.
                opened, lines = ("```", "", 0), before[:]
                close(True)
        elif match["fence"][0] != opened[0][0] or len(match["fence"]) < len(opened[0]):
            lines.append(line)
        elif not info:
            lines += [head] if head.strip() else []
            close(True)
        elif not head.strip() and language_of(_tag(info)):  # a new block without closing the last
            close(False)
            opened = (match["fence"], info, len(head))
        else:
            lines.append(line)
    close(False)
    return blocks or [_Block(tag, f"{code}\n", True) for tag, code in INLINE.findall(text)]


def _code_before(before: list[str], text: str) -> bool:
    """Whether the first fence closes code that the prompt had opened: fences then do not pair."""
    if sum(OPEN.match(line) is not None for line in text.split("\n")) % 2 == 0:
        return False
    first = next((line for line in before if line.strip()), "")
    begins = bool(C_LINE.search(first) or PYTHON_LINE.match(first))
    return begins and guess_language("\n".join(before)) is not None


def _tag(info: str) -> str:
    return info.strip("{} ").split(" ", 1)[0].split("{", 1)[0].rstrip(",:")


def _block(info: str, lines: list[str], indent: int, closed: bool) -> _Block:
    margin = " " * indent
    lines = [line[indent:] if line.startswith(margin) else line.lstrip(" ") for line in lines]
    tag = _tag(info)
    if not tag:  # some models put the tag on a line of its own
        start = next((i for i, line in enumerate(lines) if line.strip()), 0)
        first = lines[start].strip() if lines else ""
        if language_of(first) and " " not in first:
            tag, lines = first, lines[start + 1 :]
    elif language_of(tag) is None and _is_code(info):  # code on the fence's own line
        tag, lines = "", [info, *lines]
    elif _is_code(rest := "".join(info.split(None, 1)[1:])):
        lines = [rest, *lines]
    return _Block(tag, "\n".join(lines).strip("\n") + "\n", closed)


def _is_code(rest: str) -> bool:
    return bool(re.search(r"[;()]|#\s*include|^import ", rest)) and "=" not in rest.split(" ")[0]


def _language(block: _Block, wanted: str | None) -> str | None:
    """The language to judge a block in; None if it is not an answer in `wanted`."""
    tagged = language_of(block.tag)
    if wanted is None:
        neutral = block.tag.lower() in NEUTRAL_TAGS
        return tagged or (guess_language(block.code) if neutral else None)
    if tagged == wanted or (tagged in C_FAMILY and wanted in C_FAMILY):
        return tagged
    if tagged is None and block.tag.lower() in NEUTRAL_TAGS:
        guess = guess_language(block.code)
        return wanted if guess in (None, wanted) or _same_family(guess, wanted) else None
    return wanted if program_likeness(block.code, wanted) == 2 else None


def _same_family(one: str | None, other: str) -> bool:
    return one in C_FAMILY and other in C_FAMILY


def _unfenced(text: str, wanted: str | None) -> Extracted | None:
    """The answer of a completion without fences: from its first to its last line of code."""
    for language in [wanted] if wanted else languages():
        is_code = C_LINE.search if language in BRACES else PYTHON_LINE.match
        lines = text.split("\n")
        marks = [i for i, line in enumerate(lines) if line.strip() and is_code(line)]
        if not marks:
            continue
        code = "\n".join(lines[marks[0] : marks[-1] + 1]) + "\n"
        guess = guess_language(code)
        if guess == language or (guess and _same_family(guess, language)):
            return Extracted(code, wanted or guess)
    return None
