# SPDX-License-Identifier: Apache-2.0
"""Phase 3 of the compile: QDQ -> integer operators of the domain `edgec`."""

from edgec.lower.graph import DOMAIN
from edgec.lower.lower import lower_to_integers

__all__ = ["DOMAIN", "lower_to_integers"]
