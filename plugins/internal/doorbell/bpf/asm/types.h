/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * linux/types.h asks for it; where a host keeps its own depends on the host's architecture, and programs for eBPF are the same everywhere.
 */
#pragma once
#include <asm-generic/int-ll64.h>
