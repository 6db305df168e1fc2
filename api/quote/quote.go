// Package quote checks what a node's TPM has signed, for whoever asked with an AttestationRequest. It does no I/O.
package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
)

// Verify returns the values of the registers that a TPM has signed for nonce. It fails unless the quote is over just these values and this nonce, is
// signed with the answer's attestation key, and that is one with which a TPM signs nothing else.
//
// Whose TPM that is, it does not say: whoever asks compares AkPublic with the one that he has seen before.
func Verify(a *securitypb.AttestationStatus, nonce []byte) (map[uint32][]byte, error) {
	quoted, err := tpm2.Unmarshal[tpm2.TPMSAttest](a.GetQuoted())
	if err != nil {
		return nil, fmt.Errorf("quoted: %w", err)
	}
	if quoted.Magic != tpm2.TPMGeneratedValue || quoted.Type != tpm2.TPMSTAttestQuote {
		return nil, errors.New("quoted: is no quote")
	}
	if !bytes.Equal(quoted.ExtraData.Buffer, nonce) {
		return nil, errors.New("quoted: is an answer to another nonce")
	}
	values, err := registers(quoted, a.GetPcrs())
	if err != nil {
		return nil, err
	}
	return values, signed(a)
}

// registers are the values, if the quote is over them.
func registers(quoted *tpm2.TPMSAttest, pcrs []*securitypb.AttestationStatus_PCR) (map[uint32][]byte, error) {
	info, err := quoted.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("quoted: %w", err)
	}
	values, all := map[uint32][]byte{}, sha256.New()
	selected := make([]byte, 3)
	for _, p := range pcrs {
		if p.GetPcr() >= 24 || values[p.GetPcr()] != nil {
			return nil, fmt.Errorf("pcrs: register %d", p.GetPcr())
		}
		values[p.GetPcr()] = p.GetSha256()
		selected[p.GetPcr()/8] |= 1 << (p.GetPcr() % 8)
		all.Write(p.GetSha256())
	}
	banks := info.PCRSelect.PCRSelections
	if len(banks) != 1 || banks[0].Hash != tpm2.TPMAlgSHA256 || !bytes.Equal(banks[0].PCRSelect, selected) || !bytes.Equal(info.PCRDigest.Buffer, all.Sum(nil)) {
		return nil, errors.New("pcrs: the quote is over others")
	}
	return values, nil
}

// signed fails unless the attestation key of an answer has signed its quote.
func signed(a *securitypb.AttestationStatus) error {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](a.GetAkPublic())
	if err != nil {
		return fmt.Errorf("ak_public: %w", err)
	}
	if is := public.ObjectAttributes; !is.Restricted || !is.SignEncrypt || !is.FixedTPM || !is.SensitiveDataOrigin {
		return errors.New("ak_public: the key may sign anything, or may be elsewhere, too")
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return fmt.Errorf("ak_public: %w", err)
	}
	curve, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("ak_public: is no key of an elliptic curve")
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](a.GetSignature())
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	ec, err := signature.Signature.ECDSA()
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	digest := sha256.Sum256(a.GetQuoted())
	if ec.Hash != tpm2.TPMAlgSHA256 || !ecdsa.Verify(curve, digest[:], new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)) {
		return errors.New("signature: is not over the quote, or with another key")
	}
	return nil
}
