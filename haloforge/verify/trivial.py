"""Programs that cannot be an answer, yet please a judge that only compiles; a model learns them.

A rising compile rate with a rising share of these is a failure, so they are counted and shown.
"""

import re

# Comments and the insides of strings, where the name of a function means nothing.
_C_NOISE = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|//[^\n]*|/\*.*?\*/", re.S)
_PYTHON_NOISE = re.compile(
    r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.S
)
_C_PRINTS = re.compile(r"\b(?:w?cout|w?cerr|v?f?w?printf|f?puts|f?putc|putchar|fwrite|write)\b")
_C_READS = re.compile(
    r"\b(?:w?cin|f?scanf|sscanf|getline|f?getc|getchar|f?gets|fread|read|istream\w*|ifstream)\b"
)
_PYTHON_PRINTS = re.compile(r"\b(?:print|write|writelines)\b")
_PYTHON_READS = re.compile(r"\b(?:input|stdin|open|fileinput|argv)\b")
_RUST_PRINTS = re.compile(r"\b(?:e?print(?:ln)?|writeln?|write_all|panic)\b")
_RUST_READS = re.compile(r"\b(?:stdin|read\w*|File|args)\b")
_GO_PRINTS = re.compile(r"\b(?:F?print(?:f|ln)?|Write\w*)\b", re.I)
_GO_READS = re.compile(r"\b(?:[FS]?scan\w*|Stdin|Read\w*|Args)\b", re.I)
_JS_PRINTS = re.compile(r"\b(?:console|write\w*)\b")
_JS_READS = re.compile(r"\b(?:stdin|read\w*|prompt|argv)\b")
_JAVA_PRINTS = re.compile(r"\b(?:print(?:ln|f)?|format|write|append|flush)\b")
_JAVA_READS = re.compile(r"\b(?:Scanner|in|read\w*|console|args)\b")
_RULES = {
    "rust": (_C_NOISE, _RUST_PRINTS, _RUST_READS),
    "go": (_C_NOISE, _GO_PRINTS, _GO_READS),
    "javascript": (_C_NOISE, _JS_PRINTS, _JS_READS),
    "java": (_C_NOISE, _JAVA_PRINTS, _JAVA_READS),
    "c": (_C_NOISE, _C_PRINTS, _C_READS),
    "cpp": (_C_NOISE, _C_PRINTS, _C_READS),
    "python": (_PYTHON_NOISE, _PYTHON_PRINTS, _PYTHON_READS),
}


def is_trivial(code: str, language: str, reads_input: bool) -> bool:
    """Whether `code` has no means to print or, where a test has input, none to read it.

    `int main(){}` is trivial, and so is one fixed line of output for any input. Of a program that
    passed this says nothing: ask only of others.
    """
    noise, prints, reads = _RULES[language]
    text = noise.sub(" ", code)
    return not prints.search(text) or (reads_input and not reads.search(text))
