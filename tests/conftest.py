# SPDX-License-Identifier: Apache-2.0
"""Settings of all tests."""

from hypothesis import settings

# A time limit on each example would fail tests on a busy machine.
settings.register_profile("edgec", deadline=None)
settings.load_profile("edgec")
