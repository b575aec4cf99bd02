"""The methods by name: what each computes, and the fields that make it up. One more is one file and one line here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ncl_jax.field import Field
from ncl_jax.methods import logit_adjustment, margins
from ncl_jax.methods.distillation import distilled
from ncl_jax.methods.logit_adjustment import adjusted
from ncl_jax.methods.margins import dbm, ldam
from ncl_jax.methods.ncl import ncl, nclpp
from ncl_jax.methods.objective import Objective, file_digest, find_own, together

__all__ = [
    "METHODS", "SEMANTICS", "Method", "Objective", "all_fields", "declared", "fields", "file_digest", "objective",
    "objectives", "together",
]  # fmt: skip


class Method(NamedTuple):
    """A method by name.

    Attributes:
      description: a line for tables and help texts.
      objective: makes what it computes, called with the class counts and the fields of `loss`.
      fields: what it sets. Every field that any method sets, and this one does not, takes its default.
      wants: what it sets of the recipe's own, the network and the schedule; another method leaves that as it finds it.
      declares: fields of the section `loss` that no other method reads, by name.
    """

    description: str
    objective: Callable[..., Objective]
    fields: Mapping[str, Any]
    wants: Mapping[str, Any] = {}
    declares: Mapping[str, Field] = {}


_NO_HARD = {"loss.hard_weight": 0.0, "loss.hard_distill_weight": 0.0}
_NO_DISTILLATION = {"loss.distill_weight": 0.0, "loss.hard_distill_weight": 0.0}
_TWO_EXPERTS = {"loss.copies": 4, "model.num_experts": 2}
_LDAM = {"loss.margin": 0.5}
_NORMED = {"model.classifier": "normed", "model.cosine_scale": 30.0}
METHODS = {
    "ce": Method(
        "softmax cross-entropy, each expert on its own",
        ncl, {"loss.balanced": False, **_NO_HARD, **_NO_DISTILLATION},
    ),
    "balanced_softmax": Method(
        "the log prior added to the logits, each expert on its own", ncl, {**_NO_HARD, **_NO_DISTILLATION}
    ),
    "nil": Method("individual learning over all classes and over the hard categories", ncl, _NO_DISTILLATION),
    "nbod_full": Method("`balanced_softmax` and distillation between experts, over all classes only", ncl, _NO_HARD),
    "ncl_supervised": Method(
        "`nil` and distillation between experts over all classes and over the hard categories", ncl, {}
    ),
    "ncl": Method("`ncl_supervised` and momentum contrast: the whole of NCL", ncl, {"contrast.weight": 1.0}),
    "nclpp": Method(
        "NCL++: 2 experts, 4 copies of each image, distillation between experts and between copies",
        nclpp, _TWO_EXPERTS,
    ),
    "logit_adjustment": Method(
        "tau times the log prior added to the logits, each expert on its own (`loss.prior_weights=(tau,)`)",
        adjusted, {"loss.prior_weights": (1.0,)}, declares=logit_adjustment.FIELDS,
    ),
    "balpoe": Method(
        "BalPoE: each expert with a prior of its own, an ensemble that is balanced",
        adjusted, {"loss.prior_weights": ()}, declares=logit_adjustment.FIELDS,
    ),
    "ldam_drw": Method(
        "LDAM: larger margins for smaller classes, re-weighted in the last fifth of the epochs, each expert on its own",
        ldam, {**_LDAM, "loss.diversity": 0.0}, _NORMED, margins.FIELDS,
    ),
    "ride": Method(
        "RIDE's loss: `ldam_drw` and a reward for experts that differ, the more the smaller the class",
        ldam, _LDAM, _NORMED, margins.FIELDS,
    ),
    "dbm_ncl": Method(
        "DBM-NCL: `ncl_supervised` with angular margins by class and by image",
        dbm, {},
        {"model.classifier": "normed", "model.cosine_scale": 16.0, "optim.schedule": "cosine"},
        margins.FIELDS,
    ),
}  # fmt: skip
SEMANTICS: dict[str, dict[str, str]] = {
    "official": {},  # the defaults
    "equations": {  # NCL++ has one normalisation and does not read the last
        "loss.hard_scores": "own", "loss.non_hard": "exclude", "loss.distill_normalization": "mean_pair",
    },
}  # fmt: skip


def fields(method: str, semantics: str) -> dict[str, Any]:
    """What a method sets by itself, with the name of its objective."""
    chosen = METHODS[method]
    return {"loss.name": chosen.objective.__name__, **chosen.fields, **SEMANTICS[semantics]}


def declared() -> dict[str, Field]:
    """The fields of the section `loss` that single methods declare, by name."""
    return {name: field for method in METHODS.values() for name, field in method.declares.items()}


def all_fields() -> set[str]:
    """Every field that some method or semantics sets."""
    return {name for method in METHODS for semantics in SEMANTICS for name in fields(method, semantics)}


def objectives() -> dict[str, Callable[..., Objective]]:
    """What the methods and `ncl-jax distill` compute, by the name that `loss.name` takes."""
    return {method.objective.__name__: method.objective for method in METHODS.values()} | {"distilled": distilled}


def objective(name: str) -> Callable[..., Objective]:
    """What makes the objective of a name of `objectives` or of `FILE.py:FUNCTION`; ConfigError if there is none."""
    return objectives()[name] if name in objectives() else find_own(name)
