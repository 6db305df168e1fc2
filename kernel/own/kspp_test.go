package own

import (
	"slices"
	"strings"
	"testing"
)

// recommended is what the Kernel Self Protection Project recommends (kspp.github.io/Recommended_Settings, commit 058b262 of its text), but for what only
// other architectures have. A recommendation without a reason is followed: kernel/config says so in as many words, and make kernel fails if the
// kernel has it otherwise. A reason is why it is not, or need not be, in kernel/config.
var recommended = []struct {
	option string
	reason string
}{
	{"CONFIG_BUG=y", ""},
	{"CONFIG_DEBUG_KERNEL=y", ""},
	{"CONFIG_DEBUG_RODATA=y", before("4.11, where it became STRICT_KERNEL_RWX")},
	{"CONFIG_STRICT_KERNEL_RWX=y", ""},
	{"CONFIG_DEBUG_WX=y", ""},
	{"CONFIG_STACKPROTECTOR=y", ""},
	{"CONFIG_STACKPROTECTOR_STRONG=y", ""},
	{"CONFIG_DEVMEM=n", ""},
	{"CONFIG_STRICT_DEVMEM=y", "there is no /dev/mem"},
	{"CONFIG_IO_STRICT_DEVMEM=y", "there is no /dev/mem"},
	{"CONFIG_SYN_COOKIES=y", ""},
	{"CONFIG_LIST_HARDENED=y", ""},
	{"CONFIG_DEBUG_CREDENTIALS=y", before("6.7, which has no more of it")},
	{"CONFIG_DEBUG_NOTIFIERS=y", ""},
	{"CONFIG_DEBUG_LIST=y", "LIST_HARDENED checks what an attacker could use; the rest finds mistakes of kernel developers, and costs a call a list operation"},
	{"CONFIG_DEBUG_SG=y", ""},
	{"CONFIG_DEBUG_VIRTUAL=y", "a call for each translation of an address, of which freeing memory is full; it finds mistakes, and stops no attack"},
	{"CONFIG_BUG_ON_DATA_CORRUPTION=y", ""},
	{"CONFIG_SCHED_STACK_END_CHECK=y", ""},
	{"CONFIG_SECCOMP=y", ""},
	{"CONFIG_SECCOMP_FILTER=y", ""},
	{"CONFIG_LDISC_AUTOLOAD=n", ""},
	{"CONFIG_SECURITY=y", ""},
	{"CONFIG_SECURITY_YAMA=y", ""},
	{"CONFIG_SECURITY_LANDLOCK=y", ""},
	{"CONFIG_SECURITY_SELINUX_BOOTPARAM=n", noSELinux},
	{"CONFIG_SECURITY_SELINUX_DEVELOP=n", noSELinux},
	{"CONFIG_SECURITY_SELINUX_DEBUG=n", noSELinux},
	{"CONFIG_SECURITY_WRITABLE_HOOKS=n", before("6.4, which has no more of it")},
	{"CONFIG_SECURITY_LOCKDOWN_LSM=y", ""},
	{"CONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y", ""},
	{"CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y", "the generators hear by BPF, which confidentiality forbids; under Secure Boot it is integrity (LOCK_DOWN_IN_EFI_SECURE_BOOT), and lockdown=confidentiality on the command line makes it that"},
	{"CONFIG_HARDENED_USERCOPY=y", ""},
	{"CONFIG_HARDENED_USERCOPY_FALLBACK=n", before("5.16, which has no more of it")},
	{"CONFIG_HARDENED_USERCOPY_PAGESPAN=n", before("5.18, which has no more of it")},
	{"CONFIG_SLAB_FREELIST_RANDOM=y", ""},
	{"CONFIG_SLAB_FREELIST_HARDENED=y", ""},
	{"CONFIG_RANDOM_KMALLOC_CACHES=y", ""},
	{"CONFIG_SLAB_MERGE_DEFAULT=n", ""},
	{"CONFIG_SHUFFLE_PAGE_ALLOCATOR=y", ""},
	{"CONFIG_PAGE_TABLE_CHECK=y", pageTables},
	{"CONFIG_PAGE_TABLE_CHECK_ENFORCED=y", pageTables},
	{"CONFIG_SLUB_DEBUG=y", ""},
	{"CONFIG_PAGE_POISONING=y", ""},
	{"CONFIG_PAGE_POISONING_NO_SANITY=y", before("5.11, which has no more of it")},
	{"CONFIG_PAGE_POISONING_ZERO=y", before("5.11, which has no more of it")},
	{"CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y", ""},
	{"CONFIG_INIT_ON_FREE_DEFAULT_ON=y", "memory is wiped when it is given out; wiping it when it comes back, too, would go through all of it at each boot. init_on_free=1 does that for who wants it"},
	{"CONFIG_INIT_STACK_ALL_ZERO=y", ""},
	{"CONFIG_VMAP_STACK=y", ""},
	{"CONFIG_REFCOUNT_FULL=y", before("5.5, which always does it")},
	{"CONFIG_FORTIFY_SOURCE=y", ""},
	{"CONFIG_SECURITY_DMESG_RESTRICT=y", ""},
	{"CONFIG_UBSAN=y", ""},
	{"CONFIG_UBSAN_TRAP=y", ""},
	{"CONFIG_UBSAN_BOUNDS=y", ""},
	{"CONFIG_UBSAN_SANITIZE_ALL=y", before("6.9, which always does it")},
	{"CONFIG_UBSAN_SHIFT=n", ""},
	{"CONFIG_UBSAN_DIV_ZERO=n", ""},
	{"CONFIG_UBSAN_UNREACHABLE=n", ""},
	{"CONFIG_UBSAN_BOOL=n", ""},
	{"CONFIG_UBSAN_ENUM=n", ""},
	{"CONFIG_UBSAN_ALIGNMENT=n", ""},
	{"CONFIG_UBSAN_LOCAL_BOUNDS=y", clang},
	{"CONFIG_KFENCE=y", ""},
	{"CONFIG_KFENCE_SAMPLE_INTERVAL=100", ""},
	{"CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT=y", ""},
	{"CONFIG_WERROR=y", "a newer compiler would fail at its new warnings"},
	{"CONFIG_EFI_DISABLE_PCI_DMA=y", "it makes some machines fail, says Linux's own text; efi=disable_early_pci_dma on the command line does it"},
	{"CONFIG_IOMMU_SUPPORT=y", ""},
	{"CONFIG_IOMMU_DEFAULT_DMA_STRICT=y", ""},
	{"CONFIG_IOMMU_DEFAULT_PASSTHROUGH=n", "of the three one is chosen, and that is IOMMU_DEFAULT_DMA_STRICT"},
	{"CONFIG_HW_RANDOM_TPM=y", ""},
	{"CONFIG_RANDOM_TRUST_BOOTLOADER=y", before("6.2 made it the default, and later ones have no option")},
	{"CONFIG_RANDOM_TRUST_CPU=y", before("6.2 made it the default, and later ones have no option")},
	{"CONFIG_RANDSTRUCT_FULL=y", "it excludes the kernel's types (DEBUG_INFO_BTF), which the generators need"},
	{"CONFIG_SCHED_CORE=y", ""},
	{"CONFIG_ZERO_CALL_USED_REGS=y", "instructions at the end of every function, by Linux's own text up to 1 % of the time; IBT and the mitigations of returns narrow the same attacks"},
	{"CONFIG_RESET_ATTACK_MITIGATION=y", "firmware wipes the memory at each reboot that was not announced as clean, which nothing on a node does"},
	{"CONFIG_STATIC_USERMODEHELPER=y", ""},
	{"CONFIG_ACPI_CUSTOM_METHOD=n", before("6.5, which has no more of it")},
	{"CONFIG_COMPAT_BRK=n", ""},
	{"CONFIG_DEVKMEM=n", before("5.13, which has no more of it")},
	{"CONFIG_PROC_KCORE=n", ""},
	{"CONFIG_COMPAT_VDSO=n", "there is no 32-bit code for it"},
	{"CONFIG_KEXEC=n", ""},
	{"CONFIG_HIBERNATION=n", ""},
	{"CONFIG_INET_DIAG=n", ""},
	{"CONFIG_BINFMT_MISC=n", ""},
	{"CONFIG_LEGACY_PTYS=n", ""},
	{"CONFIG_LEGACY_TIOCSTI=n", ""},
	{"CONFIG_SECURITY_SELINUX_DISABLE=n", before("6.4, which has no more of it")},
	{"CONFIG_PANIC_ON_OOPS=y", ""},
	{"CONFIG_PANIC_TIMEOUT=-1", ""},
	{"CONFIG_MAGIC_SYSRQ_DEFAULT_ENABLE=176", ""},
	{"CONFIG_MODULES=n", ""},
	{"CONFIG_GCC_PLUGINS=y", plugins},
	{"CONFIG_GCC_PLUGIN_LATENT_ENTROPY=y", plugins},
	{"CONFIG_GCC_PLUGIN_STRUCTLEAK=y", "INIT_STACK_ALL_ZERO does more"},
	{"CONFIG_GCC_PLUGIN_STRUCTLEAK_BYREF_ALL=y", "INIT_STACK_ALL_ZERO does more"},
	{"CONFIG_GCC_PLUGIN_STACKLEAK=y", plugins},
	{"CONFIG_STACKLEAK_METRICS=n", plugins},
	{"CONFIG_STACKLEAK_RUNTIME_DISABLE=n", plugins},

	{"amd64 CONFIG_X86_64=y", "there is no other"},
	{"amd64 CONFIG_DEFAULT_MMAP_MIN_ADDR=65536", ""},
	{"amd64 CONFIG_X86_MSR=n", ""},
	{"amd64 CONFIG_RANDOMIZE_BASE=y", ""},
	{"amd64 CONFIG_RANDOMIZE_MEMORY=y", ""},
	{"amd64 CONFIG_X86_VSYSCALL_EMULATION=n", ""},
	{"amd64 CONFIG_LEGACY_VSYSCALL_NONE=y", ""},
	{"amd64 CONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y", ""},
	{"amd64 CONFIG_X86_KERNEL_IBT=y", ""},
	{"amd64 CONFIG_X86_USER_SHADOW_STACK=y", ""},
	{"amd64 CONFIG_COMPAT=n", "IA32_EMULATION and X86_X32_ABI are what would bring it"},
	{"amd64 CONFIG_IA32_EMULATION=n", ""},
	{"amd64 CONFIG_X86_X32=n", before("5.18, where it became X86_X32_ABI")},
	{"amd64 CONFIG_X86_X32_ABI=n", ""},
	{"amd64 CONFIG_MODIFY_LDT_SYSCALL=n", ""},
	{"amd64 CONFIG_INTEL_IOMMU=y", ""},
	{"amd64 CONFIG_INTEL_IOMMU_DEFAULT_ON=y", ""},
	{"amd64 CONFIG_INTEL_IOMMU_SVM=y", ""},
	{"amd64 CONFIG_AMD_IOMMU=y", ""},
	{"amd64 CONFIG_AMD_IOMMU_V2=y", before("6.7, which has no more of it")},
	{"amd64 CONFIG_MITIGATION_SLS=y", ""},
	{"amd64 CONFIG_CFI_CLANG=y", clang},
	{"amd64 CONFIG_CFI_PERMISSIVE=n", clang},

	{"arm64 CONFIG_DEFAULT_MMAP_MIN_ADDR=32768", ""},
	{"arm64 CONFIG_RANDOMIZE_BASE=y", ""},
	{"arm64 CONFIG_COMPAT=n", ""},
	{"arm64 CONFIG_ARM64_SW_TTBR0_PAN=y", ""},
	{"arm64 CONFIG_UNMAP_KERNEL_AT_EL0=y", ""},
	{"arm64 CONFIG_SHADOW_CALL_STACK=y", ""},
	{"arm64 CONFIG_UNWIND_PATCH_PAC_INTO_SCS=y", clang},
	{"arm64 CONFIG_ARM64_PTR_AUTH=y", ""},
	{"arm64 CONFIG_ARM64_PTR_AUTH_KERNEL=y", ""},
	{"arm64 CONFIG_ARM64_BTI=y", ""},
	{"arm64 CONFIG_ARM64_BTI_KERNEL=y", "the compiler's is broken (GCC's bug 106671), and Linux refuses it"},
	{"arm64 CONFIG_ARM64_MTE=y", ""},
	{"arm64 CONFIG_KASAN_HW_TAGS=y", "it tags and checks all memory of the kernel, at a price that nobody has measured for a node"},
	{"arm64 CONFIG_ARM64_E0PD=y", ""},
	{"arm64 CONFIG_ARM64_EPAN=y", ""},
	{"arm64 CONFIG_CFI_CLANG=y", clang},
	{"arm64 CONFIG_CFI_PERMISSIVE=n", clang},
}

const (
	clang      = "Debian's compiler for kernels is GCC"
	noSELinux  = "there is no SELinux"
	pageTables = "it takes 4 MiB of each GiB, and counts at each change of a page table"
	plugins    = "plugins need the insides of exactly the compiler that is used, and make of a kernel what no distribution tests"
)

// before is the reason for an option that Linux had before a version.
func before(what string) string { return "Linux " + what }

// valueOf returns what kernel/config says of an option, "" if it says nothing.
func (k *Kernel) valueOf(name string) string {
	i := slices.IndexFunc(k.Options, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return ""
	}
	return k.Options[i].Value
}

func TestTheRecommendationsAreFollowedOrThereIsAReason(t *testing.T) {
	for architecture := range machines {
		k := &Kernel{Architecture: architecture, Files: filesOf(architecture)}
		var err error
		if k.Options, err = read("../..", k.Files); err != nil {
			t.Fatal(err)
		}
		for _, r := range recommended {
			option := r.option
			if only, rest, is := strings.Cut(option, " "); is {
				if only != architecture {
					continue
				}
				option = rest
			}
			name, want, _ := strings.Cut(option, "=")
			got := k.valueOf(name)
			switch {
			case r.reason == "" && got != want:
				t.Errorf("%s: %s is recommended; kernel/config says %q, and here is no reason", architecture, option, got)
			case r.reason != "" && got == want:
				t.Errorf("%s: %s is followed, and here is a reason why not: %s", architecture, option, r.reason)
			}
		}
		for _, module := range []string{"yama", "landlock", "lockdown"} {
			if !slices.Contains(strings.Split(strings.Trim(k.valueOf("CONFIG_LSM"), `"`), ","), module) {
				t.Errorf("%s: CONFIG_LSM is without %s", architecture, module)
			}
		}
	}
}
