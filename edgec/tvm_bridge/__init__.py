# SPDX-License-Identifier: Apache-2.0
"""The only folder that imports TVM: import to Relax, legalize and fuse, generate C."""
