//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when a block device has come, gone or changed: when the kernel announces it to user space (dev_uevent, which all announcements of
 * devices go through, whoever listens), and when it has gone (device_del has returned: the announcement comes before). There are no more, since
 * to attach to a function the kernel goes through all of its functions, several times. Linux 6.1 to 7.3 have both; fentry on arm64 needs 6.0.
 */

#include "doorbell.h"

/* What is read of the kernel's structures; CO-RE finds the fields by their names in the running kernel. */
#define kernel __attribute__((preserve_access_index))
typedef __u32 dev_t;
typedef __u64 sector_t;
struct kobject { const char *name; } kernel;
struct kobj_uevent_env { char *envp[64]; } kernel;
struct class { const char *name; } kernel;
struct device_type { const char *name; } kernel;
struct device {
	struct kobject kobj;
	const struct device_type *type;
	const struct class *class;
	dev_t devt;
} kernel;
struct block_device {
	dev_t bd_dev;
	struct device bd_device;
} kernel;
struct gendisk {
	char disk_name[32];
	struct block_device *part0;
} kernel;
struct request_queue { struct gendisk *disk; } kernel;
struct request {
	struct request_queue *q;
	sector_t __sector;
} kernel;

/* The numbers are written out: the generator knows them too. */
enum what { added = 1, removed = 2, resized = 3, read_only = 4, changed = 5, io_error = 6, again = 7 };

/* The generator reads it in note.go. */
struct note {
	__u64 boottime;
	__u64 sector;
	__u32 what;
	__u32 dev; /* the kernel's: 12 bits of major, 20 of minor */
	__s32 error;
	__u32 partition;
	char name[32];
};

static __always_inline struct note *write(enum what what, dev_t dev)
{
	struct note *n = reserve(sizeof(*n));
	if (!n)
		return 0;
	__builtin_memset(n, 0, sizeof(*n));
	n->boottime = bpf_ktime_get_boot_ns();
	n->what = what;
	n->dev = dev;
	return n;
}

/* is_block reports whether the device is of class block, and of the wanted type. */
static __always_inline bool is_block(struct device *dev, bool *partition)
{
	char class[6] = {}, type[10] = {};
	bpf_probe_read_kernel_str(class, sizeof(class), BPF_CORE_READ(dev, class, name));
	if (class[0] != 'b' || class[1] != 'l' || class[2] != 'o' || class[3] != 'c' || class[4] != 'k')
		return false;
	bpf_probe_read_kernel_str(type, sizeof(type), BPF_CORE_READ(dev, type, name));
	*partition = type[0] == 'p';
	return true;
}

static __always_inline void ring(enum what what, struct device *dev)
{
	bool partition = false;
	if (!is_block(dev, &partition))
		return;
	struct note *n = write(what, BPF_CORE_READ(dev, devt));
	if (!n)
		return;
	n->partition = partition;
	bpf_probe_read_kernel_str(n->name, sizeof(n->name), BPF_CORE_READ(dev, kobj.name));
	bpf_ringbuf_submit(n, 0);
}

/* announced reads "ACTION=add" and, behind DEVPATH and SUBSYSTEM, what there is to say of a change: "RESIZE=1", "DISK_RO=1". What somebody
 * asked for by /sys ("SYNTH_UUID=0") is no change: PID 1 does when the kernel has looked at a new medium. A disk is announced when its queue
 * is there and its partitions have been read. */
static __always_inline void announced(struct kobject *kobj, struct kobj_uevent_env *env)
{
	struct device *dev = (void *)kobj - bpf_core_field_offset(struct device, kobj);
	char action[10] = {}, more[8] = {};

	enum what what = added;
	bpf_probe_read_kernel_str(action, sizeof(action), BPF_CORE_READ(env, envp[0]));
	if (action[7] == 'c') {
		bpf_probe_read_kernel_str(more, sizeof(more), BPF_CORE_READ(env, envp[3]));
		if (more[0] == 'R')
			what = resized;
		else if (more[0] == 'D' && more[1] == 'I' && more[5] == 'R')
			what = read_only;
		else if (more[0] == 'S')
			what = again;
		else
			what = changed;
	} else if (action[7] != 'a') {
		return;
	}
	ring(what, dev); /* once: it is copied to each place that calls it */
}

SEC("fentry/dev_uevent")
int BPF_PROG(fentry_dev_uevent, struct kobject *kobj, struct kobj_uevent_env *env)
{
	announced(kobj, env);
	return 0;
}

SEC("fexit/device_del")
int BPF_PROG(fexit_device_del, struct device *dev)
{
	ring(removed, dev);
	return 0;
}

/* Of include/uapi/linux/fs.h. */
#define BLKROSET 0x125d

/* set is what BLKROSET has set. */
static __always_inline void set(struct block_device *bdev)
{
	ring(read_only, (void *)bdev + bpf_core_field_offset(struct block_device, bd_device));
}

SEC("fexit/blkdev_common_ioctl")
int BPF_PROG(fexit_blkdev_common_ioctl, struct block_device *bdev, unsigned int mode, unsigned int cmd, unsigned long arg, void *argp, int result)
{
	if (cmd == BLKROSET && !result)
		set(bdev);
	return 0;
}

/* The same without BTF trampolines. kretprobes do not see arguments, so a kprobe keeps the first one. */
enum function { fn_device_del = 1, fn_blkdev_common_ioctl = 2 };

SEC("kprobe/dev_uevent")
int BPF_KPROBE(kprobe_dev_uevent, struct kobject *kobj, struct kobj_uevent_env *env)
{
	announced(kobj, env);
	return 0;
}

SEC("kprobe/device_del")
int BPF_KPROBE(kprobe_device_del, void *dev)
{
	begin(fn_device_del, dev);
	return 0;
}

SEC("kretprobe/device_del")
int BPF_KRETPROBE(kretprobe_device_del)
{
	struct device *dev = end(fn_device_del);
	if (dev)
		ring(removed, dev);
	return 0;
}

SEC("kprobe/blkdev_common_ioctl")
int BPF_KPROBE(kprobe_blkdev_common_ioctl, void *bdev, unsigned int mode, unsigned int cmd)
{
	if (cmd == BLKROSET)
		begin(fn_blkdev_common_ioctl, bdev);
	return 0;
}

SEC("kretprobe/blkdev_common_ioctl")
int BPF_KRETPROBE(kretprobe_blkdev_common_ioctl, int result)
{
	struct block_device *bdev = end(fn_blkdev_common_ioctl);
	if (bdev && !result)
		set(bdev);
	return 0;
}

/* Requests that failed, in every mode that has eBPF. */
SEC("raw_tp/block_rq_error")
int BPF_PROG(failed, struct request *rq, __u8 error)
{
	struct gendisk *disk = BPF_CORE_READ(rq, q, disk);
	if (!disk)
		return 0;
	struct note *n = write(io_error, BPF_CORE_READ(disk, part0, bd_dev));
	if (!n)
		return 0;
	n->error = error;
	n->sector = BPF_CORE_READ(rq, __sector);
	BPF_CORE_READ_STR_INTO(&n->name, disk, disk_name);
	bpf_ringbuf_submit(n, 0);
	return 0;
}
