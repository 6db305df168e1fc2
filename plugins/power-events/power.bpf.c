//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when a power or sleep key is pressed, a lid moves, a power supply changes or goes, or a thermal zone is too hot. All that is seen is
 * built into the kernel: the drivers (button, battery, ac) are modules, and call it. Linux 6.1 to 6.12 have all of it; fentry on arm64 needs
 * Linux 6.0.
 */
#include "doorbell.h"

/* What is read of the kernel's structures; CO-RE finds the fields by their names in the running kernel. */
#define kernel __attribute__((preserve_access_index))

struct input_dev {
	const char *name;
	unsigned long key[12];
	unsigned long sw[1];
} kernel;

struct thermal_zone_device {
	char type[20];
} kernel;

/* From linux/input-event-codes.h. */
enum { ev_key = 1, ev_sw = 5, key_power = 116, key_sleep = 142, key_power2 = 0x164, sw_lid = 0 };

/* enum thermal_trip_type of include/uapi/linux/thermal.h. */
enum { trip_hot = 2, trip_critical = 3 };

/* The numbers are written out: the generator knows them too. */
enum what { power_button = 1, sleep_button = 2, lid_closed = 3, lid_opened = 4, supply = 5, hot = 6, too_hot = 7 };

/* The generator reads it in note.go. */
struct note {
	__u64 boottime;
	__u32 what;
	__u32 padding;
	char name[48];
};

static __always_inline void ring(enum what what, const void *name)
{
	struct note *n = reserve(sizeof(*n));
	if (!n)
		return;
	__builtin_memset(n, 0, sizeof(*n));
	n->boottime = bpf_ktime_get_boot_ns();
	n->what = what;
	if (name)
		bpf_probe_read_kernel_str(n->name, sizeof(n->name), name);
	bpf_ringbuf_submit(n, 0);
}

/* is_set reads a bit of a key or switch as it was before the event: a driver may say again what it has said. */
static __always_inline bool is_set(const void *bits, unsigned int bit)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), bits + bit / 64 * 8);
	return word >> bit % 64 & 1;
}

static __always_inline void input(struct input_dev *dev, unsigned int type, unsigned int code, int value)
{
	enum what what;

	if (type == ev_key && value == 1 && (code == key_power || code == key_power2 || code == key_sleep)) {
		if (is_set((const void *)dev + bpf_core_field_offset(dev->key), code))
			return;
		what = code == key_sleep ? sleep_button : power_button;
	} else if (type == ev_sw && code == sw_lid) {
		if (is_set((const void *)dev + bpf_core_field_offset(dev->sw), sw_lid) == !!value)
			return;
		what = value ? lid_closed : lid_opened;
	} else {
		return;
	}
	ring(what, BPF_CORE_READ(dev, name));
}

SEC("fentry/input_event")
int BPF_PROG(fentry_input_event, struct input_dev *dev, unsigned int type, unsigned int code, int value)
{
	input(dev, type, code, value);
	return 0;
}

SEC("fentry/power_supply_changed")
int BPF_PROG(fentry_power_supply_changed)
{
	ring(supply, 0);
	return 0;
}

/* When it has returned, the supply is not in /sys any more. */
SEC("fexit/power_supply_unregister")
int BPF_PROG(fexit_power_supply_unregister)
{
	ring(supply, 0);
	return 0;
}

/* The same without BTF trampolines. */

SEC("kprobe/input_event")
int BPF_KPROBE(kprobe_input_event, struct input_dev *dev, unsigned int type, unsigned int code, int value)
{
	input(dev, type, code, value);
	return 0;
}

SEC("kprobe/power_supply_changed")
int BPF_KPROBE(kprobe_power_supply_changed)
{
	ring(supply, 0);
	return 0;
}

SEC("kretprobe/power_supply_unregister")
int BPF_KRETPROBE(kretprobe_power_supply_unregister)
{
	ring(supply, 0);
	return 0;
}

/* Thermal zones, in every mode that has eBPF. The kernel says it again as long as the zone is so hot. */
SEC("raw_tp/thermal_zone_trip")
int BPF_PROG(trip, struct thermal_zone_device *zone, int number, int type)
{
	if (type == trip_hot || type == trip_critical)
		ring(type == trip_hot ? hot : too_hot, (const void *)zone + bpf_core_field_offset(zone->type));
	return 0;
}
