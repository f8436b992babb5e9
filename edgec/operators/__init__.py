# SPDX-License-Identifier: Apache-2.0
"""Operators: one file a family, each operator one record (see `record.py`)."""

from edgec.operators.record import Access, Case, Operator, TensorType, get_operator, operators

__all__ = ["Access", "Case", "Operator", "TensorType", "get_operator", "operators"]
