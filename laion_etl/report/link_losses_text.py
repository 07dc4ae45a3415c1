"""The losses of links as a person reads them: a few sentences and two tables."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from laion_etl.core.quantities import quantity
from laion_etl.download.loss_causes import LossCause
from laion_etl.report.link_losses import CauseLoss, LinkLosses

_CAUSES_OF_A_HOST = 3
_REMEDIES_AT_FIRST = 3
_NOTABLE_SHARE = 0.001  # of the links; rarer causes are one line


def losses_as_lines(losses: LinkLosses) -> Iterator[str | Table]:
    """Yield lines and tables, to be printed in this order."""
    what = losses.crawl if losses.batch is None else f"batch {losses.batch} of {losses.crawl}"
    of = f", in {quantity(losses.batches, 'batch', 'batches')}" if losses.batch is None else ""
    kept = f"{losses.kept:,} of {quantity(losses.links, 'link')}"
    share = f" ({_share(losses.kept, losses)})" if losses.links else ""
    yield f"{what}: {kept} gave an image{share}{of}."
    yield from losses.notes
    if not losses.causes:
        return
    yield _causes_table(losses)
    yield from _remedies(losses)
    yield from _unusual(losses)
    if losses.hosts:
        yield _hosts_table(losses)
    batch = losses.batch if losses.batch is not None else "N"
    yield (
        "New settings count for batches that are not downloaded yet. To download a finished one again: "
        f"laion-etl stage download --crawl {losses.crawl} --batch {batch}"
    )


def _causes_table(losses: LinkLosses) -> Table:
    table = Table(title="Why links gave no image", title_justify="left")
    table.add_column("links", justify="right")
    table.add_column("of all", justify="right")
    table.add_column("cause")
    table.add_column("these links ...")
    notable = [one for one in losses.causes if one.links >= _NOTABLE_SHARE * losses.links]
    for one in notable:
        table.add_row(f"{one.links:,}", _share(one.links, losses), _name(one.cause), one.cause.sentence)
    rest = losses.causes[len(notable) :]
    if rest:
        links = sum(one.links for one in rest)
        table.add_row(
            f"{links:,}", _share(links, losses), "others", f"ended for {len(rest)} rarer causes: see --json"
        )
    return table


def _remedies(losses: LinkLosses) -> Iterator[str]:
    if not losses.kept and (found := [one.cause.remedy for one in losses.causes if one.cause.remedy]):
        yield "No link gave an image, so no gain can be estimated. What may help, the largest cause first:"
        yield from (f"  {remedy}." for remedy in found[:_REMEDIES_AT_FIRST])
        return
    helping = sorted((one for one in losses.causes if one.would_win), key=lambda one: -(one.would_win or 0))
    notable = [one for one in helping if (one.would_win or 0) >= _NOTABLE_SHARE * losses.links]
    if not notable:
        yield "No setting would win back a notable number of links."
        return
    yield "What would win links back:"
    for one in notable:
        yield f"  {_win(one, losses)}: {one.cause.remedy}."


def _win(one: CauseLoss, losses: LinkLosses) -> str:
    won = one.would_win or 0
    return f"{'about' if one.cause.is_sure else 'at most'} {won:,} ({_share(won, losses)} of all)"


def _unusual(losses: LinkLosses) -> Iterator[str]:
    for one in losses.unusual:
        part = one.part
        single = part.first == part.last
        name = f"Batch {part.first}" if single else f"Batches {part.first} to {part.last}"
        yield (
            f"{name} kept only {part.share:.0%} of {'its' if single else 'their'} links, against "
            f"{losses.kept / losses.links:.0%} overall: {one.links / part.links:.0%} {one.cause.sentence}."
        )


def _hosts_table(losses: LinkLosses) -> Table:
    sampled = losses.batch is None and losses.sampled_links < losses.links
    among = (
        f" (among {quantity(losses.sampled_links, 'link')} of "
        f"{quantity(losses.sampled_batches, 'batch', 'batches')})"
        if sampled
        else ""
    )
    table = Table(title=f"Hosts that lost the most links{among}", title_justify="left")
    table.add_column("host", overflow="fold")
    for heading in ("links", "images"):
        table.add_column(heading, justify="right")
    table.add_column("the others")
    for host in losses.hosts:
        causes = [f"{_name(cause)} {count:,}" for cause, count in host.causes[:_CAUSES_OF_A_HOST]]
        causes += ["..."] if len(host.causes) > len(causes) else []
        table.add_row(Text(host.host or "?"), f"{host.links:,}", f"{host.kept:,}", ", ".join(causes))
    return table


def _name(cause: LossCause) -> str:
    return cause.name.replace("_", " ")


def _share(links: int, losses: LinkLosses) -> str:
    share = links / losses.links
    return "under 1%" if 0 < share < 0.01 else f"{share:.0%}"
