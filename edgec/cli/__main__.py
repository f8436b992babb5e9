# SPDX-License-Identifier: Apache-2.0
"""`python -m edgec.cli`."""

from edgec.cli import main

main()
