# SPDX-License-Identifier: Apache-2.0
"""Where every tensor lives and when: a `Problem` goes in, a `MemoryPlan` that the judge accepts comes out."""
