# SPDX-License-Identifier: Apache-2.0
"""What kernels cost, one by one, on the simulated board."""
