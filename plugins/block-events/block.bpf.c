//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when a block device has come, gone or changed. Each function is seen as it returns, so that the generator finds in /sys what the
 * kernel has done. Linux 6.1 to 6.12 have all of them; fentry on arm64 needs Linux 6.0.
 */
#include "doorbell.h"

/* What is read of the kernel's structures; CO-RE finds the fields by their names in the running kernel. */
#define kernel __attribute__((preserve_access_index))
typedef __u32 dev_t;
typedef __u64 sector_t;
struct kobject { const char *name; } kernel;
struct class { const char *name; } kernel;
struct device_type { const char *name; } kernel;
struct device {
	struct kobject kobj;
	const struct device_type *type;
	const struct class *class;
	dev_t devt;
} kernel;
struct block_device { dev_t bd_dev; } kernel;
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
enum what { added = 1, removed = 2, resized = 3, read_only = 4, changed = 5, io_error = 6 };

/* KOBJ_ADD and KOBJ_CHANGE of include/linux/kobject.h. */
enum { kobj_add = 0, kobj_change = 2 };

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

static __always_inline void ring_disk(enum what what, struct gendisk *disk)
{
	struct note *n = write(what, BPF_CORE_READ(disk, part0, bd_dev));
	if (!n)
		return;
	BPF_CORE_READ_STR_INTO(&n->name, disk, disk_name);
	bpf_ringbuf_submit(n, 0);
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

static __always_inline void ring_device(enum what what, struct device *dev)
{
	bool partition = false;
	if (!is_block(dev, &partition))
		return;
	/* A disk has come when disk_uevent says so: its queue is there and its partitions have been read. */
	if (what == added && !partition)
		return;
	struct note *n = write(what, BPF_CORE_READ(dev, devt));
	if (!n)
		return;
	n->partition = partition;
	bpf_probe_read_kernel_str(n->name, sizeof(n->name), BPF_CORE_READ(dev, kobj.name));
	bpf_ringbuf_submit(n, 0);
}

static __always_inline void ring_uevent(struct gendisk *disk, int action)
{
	if (action == kobj_add)
		ring_disk(added, disk);
	else if (action == kobj_change)
		ring_disk(changed, disk);
}

SEC("fexit/device_add")
int BPF_PROG(fexit_device_add, struct device *dev, int ret)
{
	if (!ret)
		ring_device(added, dev);
	return 0;
}

SEC("fexit/device_del")
int BPF_PROG(fexit_device_del, struct device *dev)
{
	ring_device(removed, dev);
	return 0;
}

SEC("fexit/disk_uevent")
int BPF_PROG(fexit_disk_uevent, struct gendisk *disk, int action)
{
	ring_uevent(disk, action);
	return 0;
}

SEC("fexit/set_capacity_and_notify")
int BPF_PROG(fexit_set_capacity_and_notify, struct gendisk *disk, sector_t size, bool changes)
{
	if (changes)
		ring_disk(resized, disk);
	return 0;
}

SEC("fexit/set_disk_ro")
int BPF_PROG(fexit_set_disk_ro, struct gendisk *disk)
{
	ring_disk(read_only, disk);
	return 0;
}

/* The same without BTF trampolines. kretprobes do not see arguments, so a kprobe keeps the first one. */
enum function { fn_device_add = 1, fn_device_del = 2, fn_disk_uevent_add = 3, fn_disk_uevent_change = 4, fn_set_capacity = 5, fn_set_disk_ro = 6 };

#define KEEP(function, id)                                               \
	SEC("kprobe/" #function)                                         \
	int BPF_KPROBE(kprobe_##function, void *argument)                \
	{                                                                \
		begin(id, argument);                                     \
		return 0;                                                \
	}

KEEP(device_add, fn_device_add)
KEEP(device_del, fn_device_del)
KEEP(set_capacity_and_notify, fn_set_capacity)
KEEP(set_disk_ro, fn_set_disk_ro)

SEC("kprobe/disk_uevent")
int BPF_KPROBE(kprobe_disk_uevent, void *disk, int action)
{
	if (action == kobj_add)
		begin(fn_disk_uevent_add, disk);
	else if (action == kobj_change)
		begin(fn_disk_uevent_change, disk);
	return 0;
}

SEC("kretprobe/device_add")
int BPF_KRETPROBE(kretprobe_device_add, int ret)
{
	struct device *dev = end(fn_device_add);
	if (dev && !ret)
		ring_device(added, dev);
	return 0;
}

SEC("kretprobe/device_del")
int BPF_KRETPROBE(kretprobe_device_del)
{
	struct device *dev = end(fn_device_del);
	if (dev)
		ring_device(removed, dev);
	return 0;
}

SEC("kretprobe/disk_uevent")
int BPF_KRETPROBE(kretprobe_disk_uevent)
{
	struct gendisk *disk = end(fn_disk_uevent_add);
	if (disk)
		ring_disk(added, disk);
	disk = end(fn_disk_uevent_change);
	if (disk)
		ring_disk(changed, disk);
	return 0;
}

SEC("kretprobe/set_capacity_and_notify")
int BPF_KRETPROBE(kretprobe_set_capacity_and_notify, long changes)
{
	struct gendisk *disk = end(fn_set_capacity);
	if (disk && (changes & 0xff)) /* a bool is the lowest byte */
		ring_disk(resized, disk);
	return 0;
}

SEC("kretprobe/set_disk_ro")
int BPF_KRETPROBE(kretprobe_set_disk_ro)
{
	struct gendisk *disk = end(fn_set_disk_ro);
	if (disk)
		ring_disk(read_only, disk);
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
