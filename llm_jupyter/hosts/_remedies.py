"""What a person can change about the end of a host."""

from __future__ import annotations

from llm_jupyter._supervisor import reasons
from llm_jupyter.hosts.spec import HostSpec


def remedy(spec: HostSpec, reason: str) -> str:
    """The next step after a host was put down, died or was given up for that reason; empty where nothing is to be changed."""
    table = f"[hosts.{spec.name}]"
    if reason in (reasons.STOPPED, reasons.RESTARTED, reasons.TOLD_TO_END, reasons.UNUSED):
        return ""
    if reason.startswith(reasons.TOO_LARGE):
        return f"memory_limit in {table} lets it take more, on_memory says what happens then."
    if reason.startswith(reasons.IDLE):
        return f"idle_unload in {table} says how long it may be idle."
    if reason.startswith(reasons.NOT_READY):
        return _until_ready(spec, reason, table)
    if reasons.CANNOT_RUN in reason:
        return f"Install it, or give its whole path as the first word of command in {table}."
    if reason == f"{reasons.EXIT_CODE} 0" and not spec.detaches:
        return f"If its server lives on when the command returns, say in stop_command of {table} what stops it."
    return f"Type: %llm host logs {spec.name}"


def _until_ready(spec: HostSpec, reason: str, table: str) -> str:
    if spec.ready is None:
        return f"Type: %llm host logs {spec.name}"
    if reasons.SILENCE in reason:
        port = reason.rpartition(" ")[2]
        return f"Its command is to listen at {{port}}, which is {port}; start_timeout in {table} gives it longer."
    if reason.endswith(reasons.STILL_LOADING):
        return f"start_timeout in {table} gives it longer."
    return f"Let ready in {table} be a path that answers with status 200 once it serves."
