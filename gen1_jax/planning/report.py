"""A plan as a person reads it. Each line says whether its figures are compiled or estimated."""

from collections import defaultdict
from typing import Any

from gen1_jax.errors import counted

_GIB = 2**30

_HEAD = (
    f"{'one chip':22} {'batch':>6} {'parts':>5} {'source':>9} {'at rest':>8} {'temporary':>9} {'peak GiB':>13} "
    f"{'TFLOP':>7} {'HBM GB':>7} {'compute':>8} {'HBM':>7} {'exchange':>8} {'step s':>7} {'MFU':>6}"
)


def render(row: dict[str, Any]) -> str:
    """A row of `plan.make_plan`."""
    return {"machine": _machine, "try": _try, "program": _program, "stages": _stages}[row["row"]](row)


def _machine(row: dict[str, Any]) -> str:
    chip, assumed = row["chip"], row["assumptions"]
    mesh = ",".join(f"{axis}={n}" for axis, n in row["mesh"].items() if n > 1) or "one device"
    how = "compiled for it by libtpu" if row["source"] == "compiled" else f"estimated: {row['why_estimated']}"
    lines = [
        f"{row['topology']}, {counted(row['chips'], 'chip')}, {mesh}; "
        f"{row['component']} of {row['parameters']:,} parameters, {row['dtype']}, inputs {row['inputs']}, "
        f"remat {'on' if row['remat'] else 'off'}",
        f"memory and traffic are {how}",
        f"assumed: {assumed['compute_efficiency']:.0%} of {chip['peak_flops'] / 1e12:.0f} TFLOP/s is reached, HBM "
        f"{chip['hbm_bandwidth'] / 1e9:.0f} GB/s, links {chip['interconnect_bandwidth'] / 1e9:.0f} GB/s, "
        f"{assumed['overlap']:.0%} of the exchange hidden; step = max(compute, HBM) + exchange that is not hidden",
    ]
    if row["source"] == "compiled":
        lines.append("HBM traffic and exchange are read from the compiled program, operations counted from shapes")
    else:
        lines.append("activations, HBM traffic and exchange by the formulas of gen1_jax/planning/estimate.py")
    lines.append("a kind's other buckets, and steps without structure, last in proportion to their operations unless")
    lines[-1] += " they are listed; buckets of a kind are equally likely; input, checkpoints and failures left out"
    return "\n".join([*lines, "", _HEAD])


def _try(row: dict[str, Any]) -> str:
    verdict = "fits" if row["fits"] else "does not fit"
    return (
        f"  try {row['program']}: batch {row['batch']} in {counted(row['microbatches'], 'part')} needs "
        f"{_gib(row['peak_bytes'])} of {_gib(row['hbm_bytes'])} GiB ({row['source']}): {verdict}"
    )


def _program(row: dict[str, Any]) -> str:
    peak = f"{_gib(row['peak_bytes'])} of {_gib(row['hbm_bytes'])}"
    temporary = "" if row["temporary_bytes"] is None else _gib(row["temporary_bytes"])
    line = (
        f"{row['program']:22} {row['batch']:6} {row.get('microbatches', ''):>5} {row['source']:>9} "
        f"{_gib(row['argument_bytes']):>8} {temporary:>9} {peak:>13} {row['tflop']:7.1f} "
    )
    if row["bytes_accessed"] is None:
        return f"{line}out of memory"
    line += (
        f"{row['bytes_accessed'] / 1e9:7.0f} {row['compute_s']:8.3f} {row['memory_s']:7.3f} "
        f"{row['communication_s']:8.3f} {row['step_s']:7.3f} {row['mfu']:6.1%}"
    )
    if not row["fits"]:
        line += "  out of memory"
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0])
    for c in row["collectives"]:
        total = sums[c["kind"], "+".join(c["axes"])]
        for i, value in enumerate((c["count"], c["count"] * c["bytes"], c["seconds"])):
            total[i] += value
    exchanges = [
        f"    {kind} over {axes}: {count} of {size / count / 2**20:.1f} MiB on average, {size / 1e9:.2f} GB, {s:.3f} s"
        for (kind, axes), (count, size, s) in sorted(sums.items(), key=lambda item: -item[1][2])
    ]
    return "\n".join([line, *exchanges])


def _stages(row: dict[str, Any]) -> str:
    lines = ["", f"{'stage':16} {'steps':>8} {'step s':>8} {'hours':>9} {'chip-hours':>11}"]
    for stage in row["stages"]:
        lines.append(
            f"{stage['stage']:16} {stage['steps']:8} {_number(stage['step_s'], 3):>8} {_number(stage['hours'], 1):>9} "
            f"{_number(stage['chip_hours'], 0):>11}"
        )
    total = f"{'all':16} {'':8} {'':8} {_number(row['hours'], 1):>9} {_number(row['chip_hours'], 0):>11}"
    return "\n".join([*lines, total, *_preview(row["preview"])])


def _preview(preview: dict[str, Any] | None) -> list[str]:
    if preview is None:
        return []
    verdict = "fits" if preview["fits"] else "does not fit: leave previews out (preview.every=0)"
    held = f"{_gib(preview['kept_bytes'])} of the training, {_gib(preview['loaded_bytes'])} of networks"
    working = preview["temporary_bytes"]
    working = "activations left out" if working is None else f"{_gib(working)} of the sampler's activations"
    return [
        f"a preview every {counted(preview['every'], 'step')} needs {_gib(preview['peak_bytes'])} of "
        f"{_gib(preview['hbm_bytes'])} GiB on the first chip ({held}, {working}): {verdict}"
    ]


def _gib(size: float | int) -> str:
    return f"{size / _GIB:.2f}"


def _number(value: float | int | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
