// Package ova puts a VMDK into an OVA, a virtual machine in one file (DMTF DSP0243, "Open Virtualization Format", 1.1; VMware reads that version
// everywhere): a tar archive of a descriptor, a manifest with hashes, and the disk, in this order. The image builder writes with it. The same
// Spec gives the same bytes.
package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/cosi-os/cosi/images/content"
)

// Spec is a virtual machine.
type Spec struct {
	// Name is the machine's, and the stem of the files' names.
	Name string
	// Version is what people are shown.
	Version string
	// Disk is a stream-optimized VMDK of a disk of Capacity bytes, whole MiB.
	Disk     content.Content
	Capacity int64
	Time     time.Time
}

// DiskName is the VMDK's name in the archive.
func (s Spec) DiskName() string { return s.Name + ".vmdk" }

// Size and MiB are for the descriptor.
func (s Spec) Size() int64 { return s.Disk.Size() }
func (s Spec) MiB() int64  { return s.Capacity >> 20 }

// Write writes the archive to w.
func (s Spec) Write(w io.Writer) error {
	if err := s.write(w); err != nil {
		return fmt.Errorf("ova: %w", err)
	}
	return nil
}

func (s Spec) write(w io.Writer) error {
	if s.Capacity%(1<<20) != 0 {
		return fmt.Errorf("a disk of %d bytes is not one of whole MiB", s.Capacity)
	}
	var text bytes.Buffer
	if err := descriptor.Execute(&text, s); err != nil {
		return err
	}
	files := []struct {
		name string
		content.Content
	}{{s.Name + ".ovf", bytes.NewReader(text.Bytes())}, {s.Name + ".mf", nil}, {s.DiskName(), s.Disk}}
	manifest := ""
	for _, i := range []int{0, 2} {
		h := sha256.New()
		if _, err := io.Copy(h, content.Reader(files[i])); err != nil {
			return fmt.Errorf("%s: %w", files[i].name, err)
		}
		manifest += fmt.Sprintf("SHA256(%s)= %x\n", files[i].name, h.Sum(nil))
	}
	files[1].Content = content.String(manifest)
	archive := tar.NewWriter(w)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: 0o644, Size: f.Size(), ModTime: s.Time, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := io.Copy(archive, content.Reader(f)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return archive.Close()
}

// descriptor is a machine with UEFI, a disk and a network card, whose drivers Linux has. vmx-13 is vSphere 6.5. Numbers of resource types are
// CIM's: 3 a processor, 4 memory, 6 a SCSI controller, 10 a network card, 17 a disk.
var descriptor = template.Must(template.New("ovf").Parse(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="{{.DiskName | html}}" ovf:size="{{.Size}}"/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{{.MiB}}" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network</Info>
    <Network ovf:name="VM Network">
      <Description>The network that the machine is on</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{{.Name | html}}">
    <Info>A COSI node</Info>
    <Name>{{.Name | html}}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="other3xLinux64Guest">
      <Info>Linux, 64 bits</Info>
    </OperatingSystemSection>
    <ProductSection>
      <Info>What it runs</Info>
      <Product>COSI</Product>
      <Version>{{.Version | html}}</Version>
    </ProductSection>
    <VirtualHardwareSection>
      <Info>The hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{{.Name | html}}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>2 processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>1024 MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SCSI controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Network card</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`))
