# SPDX-License-Identifier: Apache-2.0
"""Graph passes, one a file; `canonicalize` lists them in the order in which they run."""
