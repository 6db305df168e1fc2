package secureboot

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// The parts of a PKCS #7 message (RFC 2315) that firmware reads. A library would sign with the time of day, and only what is an OCTET STRING.
type (
	message struct {
		Version      int
		Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
		Content      contentInfo
		Certificates asn1.RawValue
		Signers      []signerInfo `asn1:"set"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"optional"`
	}
	signerInfo struct {
		Version    int
		Issuer     issuerAndSerial
		Digest     pkix.AlgorithmIdentifier
		Attributes asn1.RawValue `asn1:"optional"`
		Encryption pkix.AlgorithmIdentifier
		Signature  []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values []any `asn1:"set"`
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}

	algorithmSHA256 = pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	algorithmRSA    = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}
)

// tagged wraps DER into the context-specific tag n.
func tagged(n int, der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: n, IsCompound: true, Bytes: der}
}

// signMessage makes the SignedData of a message over content, which is DER of a kind; or, without a kind, over any content, which the message does
// not hold: that is how variables are signed.
func (s Signer) signMessage(kind asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	signer := signerInfo{
		Version: 1, Issuer: issuerAndSerial{asn1.RawValue{FullBytes: s.Certificate.RawIssuer}, s.Certificate.SerialNumber},
		Digest: algorithmSHA256, Encryption: algorithmRSA,
	}
	info, signed := contentInfo{Type: oidData}, content
	if kind != nil {
		info = contentInfo{kind, tagged(0, content)}
		attributes, err := attributesOf(kind, content, s.Time)
		if err != nil {
			return nil, err
		}
		// They are signed as what they are, a SET, and stand in the message under another tag.
		signed = attributes
		var set asn1.RawValue
		if _, err := asn1.Unmarshal(attributes, &set); err != nil {
			return nil, err
		}
		signer.Attributes = tagged(0, set.Bytes)
	}
	var err error
	if signer.Signature, err = s.sign(signed); err != nil {
		return nil, err
	}
	return asn1.Marshal(message{
		Version: 1, Digests: []pkix.AlgorithmIdentifier{algorithmSHA256}, Content: info,
		Certificates: tagged(0, s.Certificate.Raw), Signers: []signerInfo{signer},
	})
}

// attributesOf are those that a signature of content covers.
func attributesOf(kind asn1.ObjectIdentifier, content []byte, at time.Time) ([]byte, error) {
	var inner asn1.RawValue // the digest is that of the content's value, without its tag and length
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(inner.Bytes)
	return asn1.MarshalWithParams([]attribute{
		{oidContentType, []any{kind}},
		{oidSigningTime, []any{at.UTC()}},
		{oidMessageDigest, []any{digest[:]}},
	}, "set")
}

// wrap makes a whole message of SignedData.
func wrap(signedData []byte) ([]byte, error) {
	return asn1.Marshal(contentInfo{oidSignedData, tagged(0, signedData)})
}
