"""A plan that scores an image by several crops of it."""

import dataclasses

from ncl_jax.config.plan import Plan
from ncl_jax.errors import ConfigError


def with_crops(plan: Plan, number: int) -> Plan:
    """The plan for test-time ensembling: an image is scaled to a side that is longer by one and a half patches (of
    networks without patches by three 28ths, which is the same), and cut into its four corners and its centre.

    Args:
      plan: of a run.
      number: 5, or 1 for the plan as it is.

    Raises:
      ConfigError: another number.
    """
    if number not in (1, 5):
        raise ConfigError(f"--crops={number} must be 5, the corners and the centre, or 1, the whole image")
    if number == 1:
        return plan
    backbone, size = plan.trunk or plan.network.backbone, plan.facts.image_shape[0]
    form = getattr(backbone, "form", None)
    whole = size + (form.patch * 3 // 2 if form else round(size * 3 / 28))
    pixels = plan.preprocessing._replace(resize=whole, size=whole)
    facts = plan.facts._replace(image_shape=(whole, whole, plan.facts.image_shape[2]))
    return dataclasses.replace(plan, preprocessing=pixels, facts=facts, crop=size)
