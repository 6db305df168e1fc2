package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"time"
	stdutf16 "unicode/utf16"

	"github.com/google/uuid"
)

// Variable is one of those by which firmware knows whom to trust.
type Variable string

const (
	PK  Variable = "PK"  // the platform's owner, who alone may change KEK
	KEK Variable = "KEK" // who may change db
	DB  Variable = "db"  // whose programs run
)

// Variables are all three, in the order in which they can be set: with PK, the firmware begins to ask for signatures.
var Variables = []Variable{DB, KEK, PK}

// Signs says whose key signs a variable's new value.
func (v Variable) Signs() Variable { return map[Variable]Variable{PK: PK, KEK: PK, DB: KEK}[v] }

// vendor is the variable's namespace.
func (v Variable) vendor() uuid.UUID {
	if v == DB {
		return uuid.MustParse("d719b2cb-3d3a-4596-a3bc-dad00e67656f") // EFI_IMAGE_SECURITY_DATABASE_GUID
	}
	return uuid.MustParse("8be4df61-93ca-11d2-aa0d-00e098032b8c") // EFI_GLOBAL_VARIABLE
}

var (
	certX509  = uuid.MustParse("a5c059a1-94e4-4aa7-87b5-ab155c2bf072") // EFI_CERT_X509_GUID
	certPKCS7 = uuid.MustParse("4aafd29d-68df-49ee-8aa9-347d375665a7") // EFI_CERT_TYPE_PKCS7_GUID
)

// attributes of the variables: non-volatile, of boot services and of the runtime, with authenticated writes by time.
const attributes = 0x01 | 0x02 | 0x04 | 0x20

const (
	certificateType = 0x0ef1 // WIN_CERT_TYPE_EFI_GUID
	listHead        = 28     // type, sizes: EFI_SIGNATURE_LIST
	guidSize        = 16
)

// Enrolment is what sets a variable so that it holds certificates, as systemd-boot takes it from a file (.auth): EFI_VARIABLE_AUTHENTICATION_2, UEFI
// Specification 2.10, 8.2.2. owner says whose the certificates are.
func (s Signer) Enrolment(v Variable, owner uuid.UUID, certificates ...*x509.Certificate) ([]byte, error) {
	var lists []byte
	for _, c := range certificates {
		lists = append(lists, SignatureList(owner, c)...)
	}
	at := efiTime(s.Time)
	signed := utf16(string(v), binary.LittleEndian)
	signed = append(signed, efiGUID(v.vendor())...)
	signed = binary.LittleEndian.AppendUint32(signed, attributes)
	signed = append(append(signed, at...), lists...)
	message, err := s.signMessage(nil, signed)
	if err != nil {
		return nil, err
	}
	out := binary.LittleEndian.AppendUint32(at, uint32(entryHead+guidSize+len(message)))
	out = binary.LittleEndian.AppendUint16(out, entryRevision)
	out = binary.LittleEndian.AppendUint16(out, certificateType)
	out = append(append(out, efiGUID(certPKCS7)...), message...)
	return append(out, lists...), nil
}

// SignatureList is an EFI_SIGNATURE_LIST with one certificate, which is how firmware keeps those that it trusts.
func SignatureList(owner uuid.UUID, c *x509.Certificate) []byte {
	size := guidSize + len(c.Raw)
	out := efiGUID(certX509)
	for _, n := range []int{listHead + size, 0, size} {
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
	}
	return append(append(out, efiGUID(owner)...), c.Raw...)
}

// efiTime is t as an EFI_TIME, to the second, in UTC, as variables want it.
func efiTime(t time.Time) []byte {
	t = t.UTC()
	out := binary.LittleEndian.AppendUint16(nil, uint16(t.Year()))
	out = append(out, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	return append(out, make([]byte, 16-len(out))...)
}

// efiGUID is id in memory: its first three parts are little-endian.
func efiGUID(id uuid.UUID) []byte {
	out := bytes.Clone(id[:])
	for _, part := range [][]byte{out[0:4], out[4:6], out[6:8]} {
		for i, j := 0, len(part)-1; i < j; i, j = i+1, j-1 {
			part[i], part[j] = part[j], part[i]
		}
	}
	return out
}

// utf16 is text in 16-bit units, without an end.
func utf16(text string, order binary.AppendByteOrder) []byte {
	var out []byte
	for _, unit := range stdutf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, unit)
	}
	return out
}
