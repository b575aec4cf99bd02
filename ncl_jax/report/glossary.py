"""The words of a run's page, explained on it: docs/glossary.md has more."""

from ncl_jax.report.html import Html, folded, text

ANCHOR = "words"
WORDS = {
    "head, tail": "the classes with many training images, and those with few",
    "many, medium, few": "the classes with more than 100, with 20 to 100 and with fewer than 20 training images",
    "accuracy": "the share of the test images that are named right",
    "mean of classes": "the mean of the classes' own accuracies: every class counts the same, however many test images "
    "it has",
    "recall, precision, F1": "of a class: the share of its images that are recognised; the share of the images taken "
    "for it that are of it; the harmonic mean of both, which is low where either is",
    "macro F1": "the mean of the classes' F1",
    "95 % interval": "where the true share lies with a confidence of 95 %, if the test images are drawn by chance "
    "(Wilson's interval)",
    "expert, ensemble": "one of the networks that learn together, and their mean, which is the answer of the run",
    "confidence, ECE": "the probability that an answer is given, and how far, on average, that is from how often it is "
    "right (expected calibration error)",
    "NLL": "the mean of minus the logarithm of the probability of the right class: small where right answers are "
    "confident and wrong ones are not. Its unit is called nat",
    "KL": "how far apart the probabilities of two experts are, in nats; 0 where they are the same",
    "temperature": "a number that the scores are divided by, so that probabilities are neither too high nor too low; "
    "the answers stay the same",
    "balanced softmax": "training that takes into account how frequent each class is, so that frequent classes are not "
    "preferred in the answers",
}


def section() -> Html:
    """A folded list, which links to `ANCHOR` open."""
    listed = "".join(f"<dt>{text(word)}</dt><dd>{text(meaning)}</dd>" for word, meaning in WORDS.items())
    return folded("What the words mean", f"<dl>{listed}</dl>", ANCHOR)
