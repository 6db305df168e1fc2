//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when the kernel has mounted, unmounted or changed something, in whatever mount namespace. Each function is seen as it returns, so
 * that the generator finds in the mount table what the kernel has done. Linux 6.1 to 7.3 have all of them; fentry on arm64 needs Linux 6.0.
 * Nothing of the kernel's memory is read: fentry works under lockdown=confidentiality.
 */
#include "doorbell.h"

/* The numbers are written out: the generator knows them too. */
enum what { mounted = 1, unmounted = 2, changed = 3 };

/* The generator reads it in note.go. */
struct note {
	__u64 boottime;
	__u32 what;
	__u32 padding;
};

static __always_inline int ring(enum what what, int failed)
{
	struct note *n;
	if (failed || !(n = reserve(sizeof(*n))))
		return 0;
	n->boottime = bpf_ktime_get_boot_ns();
	n->what = what;
	n->padding = 0;
	bpf_ringbuf_submit(n, 0);
	return 0;
}

#define RING(name, function, what)                                       \
	SEC("fexit/" function)                                           \
	int fexit_##name(void *ctx)                                      \
	{                                                                \
		__u64 result = 0;                                        \
		bpf_get_func_ret(ctx, &result);                          \
		return ring(what, (int)result);                          \
	}                                                                \
	SEC("kretprobe/" function)                                       \
	int BPF_KRETPROBE(kretprobe_##name, long result)                 \
	{                                                                \
		return ring(what, (int)result);                          \
	}

/* The system calls whose work is done by functions that are no symbols of their own. */
#if defined(__TARGET_ARCH_arm64)
#define SYSCALL "__arm64_sys_"
#elif defined(__TARGET_ARCH_x86)
#define SYSCALL "__x64_sys_"
#endif

RING(path_mount, "path_mount", mounted)
RING(move_mount, SYSCALL "move_mount", mounted)
RING(path_umount, "path_umount", unmounted)
RING(reconfigure_super, "reconfigure_super", changed)
RING(mount_setattr, SYSCALL "mount_setattr", changed)
