# SPDX-License-Identifier: Apache-2.0
"""A compiled model as one HTML page: its memory over time, its flash, its operators, its bounds."""

from __future__ import annotations

from edgec.report.facts import Facts, read_facts, stored_profile
from edgec.report.page import diff_page, page

__all__ = ["Facts", "diff_page", "page", "read_facts", "stored_profile"]
