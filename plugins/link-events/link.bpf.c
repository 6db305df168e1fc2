//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Rings when a carrier has come or gone, and when the kernel announces a change of a link, an address or a route: all of these announcements
 * go through rtnl_notify, whoever listens. The three functions are exported to modules; Linux 6.1 to 7.3 have them with these arguments.
 * fentry on arm64 needs Linux 6.0.
 */
#include "doorbell.h"

/* What is read of the kernel's structures; CO-RE finds the fields by their names in the running kernel. */
#define kernel __attribute__((preserve_access_index))

struct ns_common { unsigned int inum; } kernel;
struct net { struct ns_common ns; } kernel;
typedef struct { struct net *net; } kernel possible_net_t;
struct net_device {
	int ifindex;
	possible_net_t nd_net;
} kernel;
struct sk_buff { unsigned char *data; } kernel;

/* The numbers are written out: the generator knows them too. */
enum what { carrier_up = 1, carrier_down = 2, link = 3, address = 4, route = 5 };

/* enum rtnetlink_groups of include/uapi/linux/rtnetlink.h. */
enum { group_link = 1, group_ipv4_address = 5, group_ipv4_route = 7, group_ipv6_address = 9, group_ipv6_route = 11 };

/* Where struct ifinfomsg and struct ifaddrmsg have the link's index, behind struct nlmsghdr: both at the same place. */
enum { index_at = 16 + 4 };

/* The generator reads it in note.go. */
struct note {
	__u64 boottime;
	__u32 what;
	__s32 index;
};

/* The network namespace of the generator, as the kernel numbers it: those of containers have networks of their own. The generator sets it
 * before the programs are loaded. */
const volatile __u32 ours = 0;

static __always_inline void ring(enum what what, int index)
{
	struct note *n = reserve(sizeof(*n));
	if (!n)
		return;
	n->boottime = bpf_ktime_get_boot_ns();
	n->what = what;
	n->index = index;
	bpf_ringbuf_submit(n, 0);
}

static __always_inline void carrier(enum what what, struct net_device *dev)
{
	if (BPF_CORE_READ(dev, nd_net.net, ns.inum) == ours)
		ring(what, BPF_CORE_READ(dev, ifindex));
}

static __always_inline void announced(struct sk_buff *skb, struct net *net, __u32 group)
{
	enum what what;
	int index = 0;

	if (group == group_link)
		what = link;
	else if (group == group_ipv4_address || group == group_ipv6_address)
		what = address;
	else if (group == group_ipv4_route || group == group_ipv6_route)
		what = route;
	else
		return;
	if (BPF_CORE_READ(net, ns.inum) != ours)
		return;
	if (what != route)
		bpf_probe_read_kernel(&index, sizeof(index), BPF_CORE_READ(skb, data) + index_at);
	ring(what, index);
}

SEC("fexit/netif_carrier_on")
int BPF_PROG(fexit_netif_carrier_on, struct net_device *dev)
{
	carrier(carrier_up, dev);
	return 0;
}

SEC("fexit/netif_carrier_off")
int BPF_PROG(fexit_netif_carrier_off, struct net_device *dev)
{
	carrier(carrier_down, dev);
	return 0;
}

/* Before the message is sent: it is gone afterwards. */
SEC("fentry/rtnl_notify")
int BPF_PROG(fentry_rtnl_notify, struct sk_buff *skb, struct net *net, __u32 pid, __u32 group)
{
	announced(skb, net, group);
	return 0;
}

/* The same without BTF trampolines. kretprobes do not see arguments, so a kprobe keeps the first one. */
enum function { fn_netif_carrier_on = 1, fn_netif_carrier_off = 2 };

SEC("kprobe/netif_carrier_on")
int BPF_KPROBE(kprobe_netif_carrier_on, struct net_device *dev)
{
	begin(fn_netif_carrier_on, dev);
	return 0;
}

SEC("kretprobe/netif_carrier_on")
int BPF_KRETPROBE(kretprobe_netif_carrier_on)
{
	struct net_device *dev = end(fn_netif_carrier_on);
	if (dev)
		carrier(carrier_up, dev);
	return 0;
}

SEC("kprobe/netif_carrier_off")
int BPF_KPROBE(kprobe_netif_carrier_off, struct net_device *dev)
{
	begin(fn_netif_carrier_off, dev);
	return 0;
}

SEC("kretprobe/netif_carrier_off")
int BPF_KRETPROBE(kretprobe_netif_carrier_off)
{
	struct net_device *dev = end(fn_netif_carrier_off);
	if (dev)
		carrier(carrier_down, dev);
	return 0;
}

SEC("kprobe/rtnl_notify")
int BPF_KPROBE(kprobe_rtnl_notify, struct sk_buff *skb, struct net *net, __u32 pid, __u32 group)
{
	announced(skb, net, group);
	return 0;
}
