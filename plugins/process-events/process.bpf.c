//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when a process ends by a signal that is no request, and when a program that is not on the root file system is started. Each is
 * told by the process itself, at raw tracepoints: its control group is still its own then. Linux 6.1 to 6.12 have all that is read.
 */
#include "doorbell.h"

/* What is read of the kernel's structures; CO-RE finds the fields by their names in the running kernel. */
#define kernel __attribute__((preserve_access_index))
typedef struct { int counter; } atomic_t;
struct mm_struct;
struct kernfs_node {
	struct kernfs_node *parent;
	const char *name;
} kernel;
/* As it is called since Linux 6.15. */
struct kernfs_node___later { struct kernfs_node *__parent; } kernel;
struct cgroup { struct kernfs_node *kn; } kernel;
struct css_set { struct cgroup *dfl_cgrp; } kernel;
struct signal_struct {
	atomic_t live;
	struct mm_struct *oom_mm;
} kernel;
struct task_struct {
	int exit_code;
	char comm[16];
	struct css_set *cgroups;
	struct signal_struct *signal;
} kernel;
struct super_block { __u32 s_dev; } kernel;
struct inode { struct super_block *i_sb; } kernel;
struct file { struct inode *f_inode; } kernel;
struct linux_binprm {
	struct file *file;
	const char *filename;
} kernel;
struct kernel_siginfo { int si_code; } kernel;
struct sigaction { void *sa_handler; } kernel;
struct k_sigaction { struct sigaction sa; } kernel;

/* The numbers are written out: the generator knows them too. */
enum what { oom_killed = 1, crashed = 2, unexpected_exec = 3 };

enum { levels = 6, name_size = 64 };

/* The generator reads it in note.go. */
struct note {
	__u64 boottime;
	__u32 what;
	__u32 pid;
	__u32 exit_code;
	__s32 reason; /* si_code */
	__u32 has_reason;
	__u32 padding;
	char comm[16];
	char file[128];
	char group[levels][name_size]; /* the innermost first */
};

/* The device of the root file system, as the kernel writes it. The generator sets it before the programs are loaded. */
const volatile __u32 root_device = 0;

/* Why a process got the signal that ends it: the kernel's si_code. The oldest go first, should one survive after all. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __s32);
} reasons SEC(".maps");

static __always_inline struct kernfs_node *above(struct kernfs_node *n)
{
	if (bpf_core_field_exists(n->parent))
		return BPF_CORE_READ(n, parent);
	struct kernfs_node___later *later = (void *)n;
	return BPF_CORE_READ(later, __parent);
}

static __always_inline struct note *write(enum what what, struct task_struct *task)
{
	struct note *n = reserve(sizeof(*n));
	if (!n)
		return 0;
	__builtin_memset(n, 0, sizeof(*n));
	n->boottime = bpf_ktime_get_boot_ns();
	n->what = what;
	n->pid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_STR_INTO(&n->comm, task, comm);
	struct kernfs_node *group = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
#pragma unroll
	for (int i = 0; i < levels; i++) {
		if (!group)
			break;
		bpf_probe_read_kernel_str(n->group[i], name_size, BPF_CORE_READ(group, name));
		group = above(group);
	}
	return n;
}

/* dumps tells the signals whose default is a core dump (SIG_KERNEL_COREDUMP_MASK of include/linux/signal.h). */
static __always_inline bool dumps(__u32 sig)
{
	__u64 mask = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 24 | 1 << 25 | 1ULL << 31;
	return sig < 32 && (mask >> sig & 1);
}

SEC("raw_tp/signal_deliver")
int BPF_PROG(delivered, int sig, struct kernel_siginfo *info, struct k_sigaction *action)
{
	if (!dumps(sig) || BPF_CORE_READ(action, sa.sa_handler)) /* SIG_DFL is 0 */
		return 0;
	__u32 process = bpf_get_current_pid_tgid() >> 32;
	__s32 reason = BPF_CORE_READ(info, si_code);
	bpf_map_update_elem(&reasons, &process, &reason, BPF_ANY);
	return 0;
}

/* A thread ends. The process has ended when no other lives; then this one's code is the process's, if a signal ended it. */
SEC("raw_tp/sched_process_exit")
int BPF_PROG(ended, struct task_struct *task)
{
	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	__u32 code = BPF_CORE_READ(task, exit_code), sig = code & 0x7f;
	enum what what = crashed;
	if (sig == 9 && BPF_CORE_READ(task, signal, oom_mm))
		what = oom_killed;
	else if (!dumps(sig))
		return 0;
	struct note *n = write(what, task);
	if (!n)
		return 0;
	n->exit_code = code;
	__u32 process = n->pid; /* Linux 6.1 takes no key from a ring buffer. */
	__s32 *reason = bpf_map_lookup_elem(&reasons, &process);
	if (reason) {
		n->reason = *reason;
		n->has_reason = 1;
		bpf_map_delete_elem(&reasons, &process);
	}
	bpf_ringbuf_submit(n, 0);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	if (BPF_CORE_READ(bprm, file, f_inode, i_sb, s_dev) == root_device)
		return 0;
	struct note *n = write(unexpected_exec, task);
	if (!n)
		return 0;
	bpf_probe_read_kernel_str(n->file, sizeof(n->file), BPF_CORE_READ(bprm, filename));
	bpf_ringbuf_submit(n, 0);
	return 0;
}
