// Package builtin holds all kinds of this repository. The runtime and host tools use it; plugins do not, because it links every
// generated package.
package builtin

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
)

// Set returns a new set of the kinds. It panics if they contradict each other, which the test of this package rules out.
func Set() *kinds.Set {
	set, err := load()
	if err != nil {
		panic(err)
	}
	return set
}

func load() (*kinds.Set, error) {
	files := &protoregistry.Files{}
	for _, file := range []protoreflect.FileDescriptor{
		metapb.File_cosi_resource_meta_meta_proto,
		etcdpb.File_cosi_etcd_v1alpha1_guard_proto,
		eventspb.File_cosi_events_v1alpha1_block_proto,
		eventspb.File_cosi_events_v1alpha1_crash_proto,
		eventspb.File_cosi_events_v1alpha1_generator_proto,
		eventspb.File_cosi_events_v1alpha1_kernel_proto,
		eventspb.File_cosi_events_v1alpha1_link_proto,
		eventspb.File_cosi_events_v1alpha1_mount_proto,
		eventspb.File_cosi_events_v1alpha1_pressure_proto,
		eventspb.File_cosi_events_v1alpha1_process_proto,
		kernelpb.File_cosi_kernel_v1alpha1_module_proto,
		machinepb.File_cosi_machine_v1alpha1_access_proto,
		machinepb.File_cosi_machine_v1alpha1_machine_proto,
		machinepb.File_cosi_machine_v1alpha1_installation_proto,
		machinepb.File_cosi_machine_v1alpha1_registry_proto,
		machinepb.File_cosi_machine_v1alpha1_upgrade_proto,
		networkpb.File_cosi_network_v1alpha1_network_proto,
		powerpb.File_cosi_power_v1alpha1_power_proto,
		securitypb.File_cosi_security_v1alpha1_security_proto,
		servicepb.File_cosi_service_v1alpha1_service_proto,
		storagepb.File_cosi_storage_v1alpha1_disk_proto,
		storagepb.File_cosi_storage_v1alpha1_mount_proto,
		storagepb.File_cosi_storage_v1alpha1_volume_proto,
		testpb.File_cosi_test_v1alpha1_probe_proto,
	} {
		if err := files.RegisterFile(file); err != nil {
			return nil, err
		}
	}
	all, err := kinds.FromFiles(files)
	if err != nil {
		return nil, err
	}
	return kinds.NewSet(all...)
}
