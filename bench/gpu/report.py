"""The readable table beside the result file."""

from __future__ import annotations

from typing import Any

_VERDICTS = {"met": "met", "missed": "**missed**", "not measured": "not measured", "not judged": "not judged"}


def markdown(report: dict[str, Any]) -> str:
    """Return the report as a page."""
    parts = report["parts"]
    lines = [f"# GPU check: {report['machine']['name']}", "", *_heading(report), "", "## Targets", "",
             "| target | measured | limit | verdict |", "|---|---|---|---|"]
    for row in report["targets"]:
        value = "" if row["value"] is None else _number(row["value"])
        why = f" ({_line(row['reason'])})" if row["reason"] else ""
        lines.append(f"| {row['target']} | {value} | {_number(row['limit'])} | {_VERDICTS[row['verdict']]}{why} |")
    if report["advice"]:
        lines += ["", report["advice"]]
    lines += ["", "## Parts", "", "| part | status | seconds | share | clocks, power, temperature at its end |",
              "|---|---|---|---|---|"]
    for part in parts.values():
        why = f": {_line(part['reason'])}" if part["reason"] else ""
        lines.append(f"| {part['title']} | {part['status']}{why} | {part['seconds']:.1f} | {part['share_seconds']:.0f} "
                     f"| {_clocks(part['result'].get('clocks', {}))} |")
    results = {name: part["result"] for name, part in parts.items()}
    for section in (_loss_time(results.get("loss-time", {})), _memory(results.get("loss-memory", {})),
                    _numerics(results.get("loss-numerics", {})), _steps(results.get("steps-0.6b", {})),
                    _steps(results.get("steps-1.7b", {})), _table1(results.get("table1", {}))):
        lines += ["", *section] if section else []
    return "\n".join(lines) + "\n"


def _heading(report: dict[str, Any]) -> list[str]:
    machine, lines = report["machine"], []
    if not report["is_gpu_result"]:
        lines.append("**Not a GPU result**: small shapes or a CPU, to show how the check runs.")
    if report["partial"]:
        lines.append(f"**Partial**: {report['partial']}.")
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    driver = f"driver {machine['driver']}, CUDA {machine['cuda']}, " if machine.get("driver") else ""
    dirty = " with changes" if machine["dirty"] else ""
    lines.append(f"{report['started']}, {report['seconds']:.0f} s; {driver}Python {machine['python']}, {packages}; "
                 f"commit {machine['commit']}{dirty}. Medians; (least to greatest) of the repetitions.")
    return lines


def _loss_time(result: dict[str, Any]) -> list[str]:
    if not result.get("products"):
        return []
    shape = result["shape"]
    lines = [f"## Mixed loss, forward and backward: V={shape['vocabulary']:,} D={shape['hidden']:,} "
             f"T={shape['tokens']:,} {shape['dtype']}", "", "| what | ms | over its products |", "|---|---|---|"]
    for count, row in result["products"].items():
        if row:
            lines.append(f"| {count} matrix products, {row['tflops_per_second']:,.1f} TFLOP/s | {_ms(row)} | 1 |")
    for title, paths in result.get("paths", {}).items():
        lines += [f"| {title}, {path} | {_ms(row)} | {_number(row['times_products'])} |" for path, row in paths.items()]
    lines += [f"| mixed, chunks of {chunk} | {_ms(row)} | |" for chunk, row in result.get("chunks", {}).items() if row]
    lines += [f"| mixed, fp32 weights under bf16 autocast, {path} | {_ms(row)} | |"
              for path, row in result.get("autocast", {}).items() if row]
    return lines


def _memory(result: dict[str, Any]) -> list[str]:
    memory = result.get("memory")
    if not memory or "full_bytes" not in memory:
        return []
    lines = ["## Mixed loss: memory beyond inputs and gradients", "",
             "| what | MiB | of full logits |", "|---|---|---|"]
    for path, beyond in memory["beyond_bytes"].items():
        share = f"1/{memory['full_bytes'] / beyond:,.1f}" if beyond else "none seen"
        lines.append(f"| {path} | {beyond / 2**20:,.0f} | {share} |")
    lines.append(f"| full logits ({memory['full_how']}) | {memory['full_bytes'] / 2**20:,.0f} | 1 |")
    lines.append(f"| (two float32 logit tensors alone) | {memory['two_fp32_logit_tensors_bytes'] / 2**20:,.0f} | |")
    return lines


def _numerics(result: dict[str, Any]) -> list[str]:
    numerics = result.get("numerics")
    if not numerics:
        return []
    names = list(next(iter(numerics["errors"].values())))
    return ["## Mixed loss: relative errors against float64", "",
            f"{numerics['shape']['tokens']:,} tokens in chunks of {numerics['shape']['chunk']}; `rounded` is the "
            "float64 gradient rounded to bf16.", "",
            f"| what | {' | '.join(names)} |", f"|---|{'---|' * len(names)}",
            *(f"| {which} | {' | '.join(f'{errors[name]:.1e}' for name in names)} |"
              for which, errors in numerics["errors"].items())]


def _steps(result: dict[str, Any]) -> list[str]:
    cases = result.get("cases")
    if not cases:
        return []
    shape = result["shape"]
    lines = [f"## Updates: {shape['model']}, {shape['parameters']:,} parameters, random weights", "",
             f"{len(shape['lengths'])} examples of {min(shape['lengths'])} to {max(shape['lengths'])} tokens "
             f"({shape['attended_tokens']:,} tokens, {shape['padded_tokens']:,} with padding), micro-batch "
             f"{shape['micro_batch']}, fp32 weights, bf16 autocast, gradient checkpointing.", "",
             "| case, path of the loss | s | tokens/s | SFT updates | model TFLOP/s | MFU | highest memory, GiB |",
             "|---|---|---|---|---|---|---|"]
    for title, row in cases.items():
        if "seconds" not in row:
            lines.append(f"| {title} | {_line(row.get('reason') or 'not measured')} | | | | | |")
            continue
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:,.1f}"
        spread = row["times_sft_spread"]
        times = f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})" if spread else ""
        lines.append(f"| {title} | {_ms(row['seconds'], 1):s} | {row['tokens_per_second']:,.0f} | {times} | "
                     f"{row['model_tflops_per_second']:,.1f} | {mfu} | {peak} |")
    return lines


def _table1(result: dict[str, Any]) -> list[str]:
    if not result.get("scores"):
        return []
    return ["## Tiny Table 1, cut down", "", f"In {result['seconds']:.0f} s from pretraining to the table: "
            + "; ".join(f"{name} {value:.1f}" for name, value in result["scores"].items()) + "."]


def _ms(row: dict[str, Any], factor: int = 1000) -> str:
    digits = 2 if factor == 1000 else 3
    return (f"{row['median'] * factor:,.{digits}f} ({row['min'] * factor:,.{digits}f} to "
            f"{row['max'] * factor:,.{digits}f})")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.1e}"


def _line(text: str) -> str:
    return text.splitlines()[0].replace("|", "\\|")


def _clocks(clocks: dict[str, str | None]) -> str:
    shown = [clocks.get(name) for name in ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")]
    return ", ".join(value for value in shown if value)
