# SPDX-License-Identifier: Apache-2.0
"""Program and plan -> readable C, header, linker script, boot data."""
