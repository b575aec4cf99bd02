"""The loss terms of all methods in words: on the console, in charts and in the glossary."""

HARD = "hard-category"
BETWEEN = "distillation between"
WORDS = {
    "nil": "cross-entropy",
    "nil_hard": f"{HARD} cross-entropy",
    "nbod": f"{BETWEEN} experts",
    "nbod_hard": f"{HARD} {BETWEEN} experts",
    "inter": f"{BETWEEN} experts",
    "inter_hard": f"{HARD} {BETWEEN} experts",
    "intra": f"{BETWEEN} copies",
    "intra_hard": f"{HARD} {BETWEEN} copies",
    "contrast": "momentum contrast",
    "ldam": "cross-entropy with margins",
    "diversity": "difference between experts",
}


def in_words(name: str) -> str:
    """A term in words; one of a custom method by its own name."""
    return WORDS.get(name, name)
