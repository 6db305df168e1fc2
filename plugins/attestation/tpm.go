package attestation

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
)

// registers is how many a TPM of a PC has.
const registers = 24

// describe is a TPM's manufacturer and firmware.
func describe(chip transport.TPM) (string, error) {
	maker, err := property(chip, tpm2.TPMPTManufacturer)
	if err != nil {
		return "", err
	}
	version, err := property(chip, tpm2.TPMPTFirmwareVersion1)
	if err != nil {
		return "", err
	}
	name := bytes.TrimRight([]byte{byte(maker >> 24), byte(maker >> 16), byte(maker >> 8), byte(maker)}, "\x00 ")
	return fmt.Sprintf("TPM 2.0 of %s, firmware %d.%d", name, version>>16, version&0xffff), nil
}

func property(chip transport.TPM, which tpm2.TPMPT) (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(which), PropertyCount: 1}.Execute(chip)
	if err != nil {
		return 0, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	all, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	if len(all.TPMProperty) != 1 || all.TPMProperty[0].Property != which {
		return 0, fmt.Errorf("the TPM has no property %#x", which)
	}
	return all.TPMProperty[0].Value, nil
}

func selection(pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)}}}
}

// readPCRs returns the values of registers, in the order of their numbers, which is that of pcrs. A TPM gives eight at once.
func readPCRs(chip transport.TPM, pcrs []uint) ([][]byte, error) {
	var values [][]byte
	for some := range slices.Chunk(pcrs, 8) {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(some)}.Execute(chip)
		if err != nil {
			return nil, fmt.Errorf("TPM2_PCR_Read: %w", err)
		}
		if len(rsp.PCRValues.Digests) != len(some) {
			return nil, errors.New("TPM2_PCR_Read: the TPM has no bank of SHA-256")
		}
		for _, digest := range rsp.PCRValues.Digests {
			values = append(values, digest.Buffer)
		}
	}
	return values, nil
}

// attestationKey is what the key that signs quotes is made of. Its template is fixed: made again, it is the same key.
var attestationKey = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	// Restricted: it signs what the TPM itself says, and nothing that looks like that.
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

// tries is how often a quote is taken until no register has changed meanwhile.
const tries = 5

// signed has the TPM sign registers with a nonce.
func signed(chip transport.TPM, nonce []byte, wanted []uint32) (*securitypb.AttestationStatus, error) {
	var pcrs []uint
	for i := range uint32(registers) {
		if slices.Contains(wanted, i) || len(wanted) == 0 && i < 16 {
			pcrs = append(pcrs, uint(i))
		}
	}
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(attestationKey)}.Execute(chip)
	if err != nil {
		return nil, fmt.Errorf("attestation key: TPM2_CreatePrimary: %w", err)
	}
	defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(chip) // and the resource manager would, when the device is closed
	public, err := key.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	a := &securitypb.AttestationStatus{AkPublic: tpm2.Marshal(*public), EkCertificate: certificate(chip)}
	for range tries {
		taken, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: nonce}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selection(pcrs),
		}.Execute(chip)
		if err != nil {
			return nil, fmt.Errorf("TPM2_Quote: %w", err)
		}
		values, err := readPCRs(chip, pcrs)
		if err != nil {
			return nil, err
		}
		same, err := covers(taken.Quoted, values)
		if err != nil {
			return nil, err
		}
		if !same {
			continue
		}
		a.Quoted, a.Signature = taken.Quoted.Bytes(), tpm2.Marshal(taken.Signature)
		for i, value := range values {
			a.Pcrs = append(a.Pcrs, &securitypb.AttestationStatus_PCR{Pcr: uint32(pcrs[i]), Sha256: value})
		}
		return a, nil
	}
	return nil, errors.New("the registers change faster than they are read")
}

// covers reports whether a quote is over these values.
func covers(quoted tpm2.TPM2BAttest, values [][]byte) (bool, error) {
	attest, err := quoted.Contents()
	if err != nil {
		return false, err
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(bytes.Join(values, nil))
	return bytes.Equal(info.PCRDigest.Buffer, digest[:]), nil
}

// Where manufacturers leave the certificates of endorsement keys: TCG EK Credential Profile 2.6, 2.2.1.4 (RSA 2048, ECC P-256).
var certificates = []tpm2.TPMHandle{0x01c00002, 0x01c0000a}

// certificate is that of the TPM's endorsement key, nil if it has none.
func certificate(chip transport.TPM) []byte {
	for _, index := range certificates {
		if der, err := readNV(chip, index); err == nil {
			return der
		}
	}
	return nil
}

// mostNV is how much a TPM gives at once, whatever its buffers are.
const mostNV = 512

// readNV reads what a TPM keeps at an index that everybody may read.
func readNV(chip transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	area, err := tpm2.NVReadPublic{NVIndex: index}.Execute(chip)
	if err != nil {
		return nil, err
	}
	public, err := area.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	var data []byte
	for len(data) < int(public.DataSize) {
		handle := tpm2.AuthHandle{Handle: index, Name: area.NVName, Auth: tpm2.PasswordAuth(nil)}
		part, err := tpm2.NVRead{AuthHandle: handle, NVIndex: tpm2.NamedHandle{Handle: index, Name: area.NVName},
			Size: uint16(min(mostNV, int(public.DataSize)-len(data))), Offset: uint16(len(data))}.Execute(chip)
		if err != nil {
			return nil, err
		}
		if len(part.Data.Buffer) == 0 {
			return nil, errors.New("the TPM gives nothing")
		}
		data = append(data, part.Data.Buffer...)
	}
	return data, nil
}
