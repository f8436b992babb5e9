# SPDX-License-Identifier: Apache-2.0
"""From C files to measured runs: toolchain, stack bound, transport, runners, simulated board."""
