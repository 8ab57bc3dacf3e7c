"""What is wrong and what to type: the initialization flow, walked step by step."""

from __future__ import annotations

from llm_jupyter.doctor.examination import examine as examine
from llm_jupyter.doctor.examination import report as report
from llm_jupyter.doctor.findings import Finding as Finding
from llm_jupyter.doctor.findings import Mark as Mark
from llm_jupyter.doctor.findings import Remedy as Remedy
from llm_jupyter.doctor.findings import Report as Report
