"""Shows the cached features of frozen backbones, or deletes them.

    ncl-jax cache list
    ncl-jax cache clean --days=30

Nothing is lost by deleting: what a run needs again is computed again.
"""

import argparse
import time

from ncl_jax.cli.arguments import Parser
from ncl_jax.data.features import cache
from ncl_jax.errors import ConfigError
from ncl_jax.runs.trunk import cache as folder
from ncl_jax.runtime import console


def arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("action", choices=("list", "clean"), help="show all sets of features, or delete them")
    parser.add_argument("--dir", default="", metavar="DIR", help="data.cache of the runs; default: the user's cache")
    parser.add_argument("--days", type=float, default=0.0, metavar="N", help="only those not used for N days")


def line(found: cache.Cached) -> str:
    """A kind of features in words."""
    fields = ("dataset", "backbone", "precision", "pixels", "views of each image")
    *name, size, views = (str(found.about.get(field, "?"))[:60] for field in fields)
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.used))
    return f"{found.key}  {found.bytes / 1e6:9.1f} MB  last used {used}  {' '.join(name)} {size} px, views: {views}"


def main(args: argparse.Namespace) -> None:
    """The command."""
    if not args.days >= 0:
        raise ConfigError(f"--days={args.days} must be at least 0")
    root = folder(args.dir)
    if root is None:
        raise ConfigError(f"--dir={args.dir}: there is no cache; pass the folder of data.cache")
    found = cache.clean(root, args.days) if args.action == "clean" else cache.listing(root)
    for one in found:
        console.say(line(one))
    total = sum(one.bytes for one in found) / 1e6
    console.say(
        f"{'deleted' if args.action == 'clean' else 'in'} {root}: {len(found)} sets of features, {total:.1f} MB"
    )
