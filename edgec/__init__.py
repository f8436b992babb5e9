# SPDX-License-Identifier: Apache-2.0
"""edgec: a model goes in, a proven-to-fit program comes out."""

__version__ = "0.1.0"
