/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * What every probe has: a ring buffer of notes to the generator, and a count of those that did not fit. A probe includes this first.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
/* What a kprobe sees: struct pt_regs of arch/ARCH/include/uapi/asm/ptrace.h, which a host of another architecture has not. */
#if defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
#elif defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
	unsigned long rax, rcx, rdx, rsi, rdi, orig_rax;
	unsigned long rip, cs, eflags, rsp, ss;
};
#endif
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* The kernel lets programs use its functions under licences that fit its own. */
char bpf_license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 10);
} notes SEC(".maps");

/* dropped[0] counts notes that did not fit. The generator maps it: a system call for it would keep kprobes on its processor from being run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

/* reserve returns room for a note, or counts it as dropped. */
static __always_inline void *reserve(__u64 size)
{
	void *note = bpf_ringbuf_reserve(&notes, size, 0);
	if (!note) {
		__u32 first = 0;
		__u64 *count = bpf_map_lookup_elem(&dropped, &first);
		if (count)
			__sync_fetch_and_add(count, 1);
	}
	return note;
}

/* The arguments of functions that a kprobe has seen begin, for the kretprobe, which sees only how they end. */
struct call {
	__u64 thread;
	__u64 function;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct call);
	__type(value, __u64);
} begun SEC(".maps");

static __always_inline void begin(__u64 function, const void *argument)
{
	struct call call = {bpf_get_current_pid_tgid(), function};
	__u64 value = (__u64)argument;
	bpf_map_update_elem(&begun, &call, &value, BPF_ANY);
}

/* end returns what begin was told, or NULL. */
static __always_inline void *end(__u64 function)
{
	struct call call = {bpf_get_current_pid_tgid(), function};
	__u64 *value = bpf_map_lookup_elem(&begun, &call);
	if (!value)
		return 0;
	void *argument = (void *)*value;
	bpf_map_delete_elem(&begun, &call);
	return argument;
}
