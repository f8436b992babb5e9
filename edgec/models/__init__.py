# SPDX-License-Identifier: Apache-2.0
"""The model families that edgec brings along, one file each; `registry` lists them without torch."""
