// Package pkcs11 signs with private keys that are in a token, a device that does not give them away. The image builder calls it for the keys that a
// definition names by a PKCS #11 URI.
//
// What drives a token is a module, a shared library of its maker's. Loading one takes cgo, and our programs are built without: only those built with the
// tag pkcs11 open keys, all others say how to build one that does. All of them read URIs.
//
// A token is logged in to once for a key, however that goes, as it locks itself after a few wrong PINs. Nobody is asked for one. No PIN is in what a URI
// or an error says.
package pkcs11

import (
	"crypto"
	"fmt"
	"io"
)

// Key is a private key in a token. It makes the signatures of images, RSA with PKCS #1 v1.5 over SHA-256, or those of upgrades, Ed25519; one after the
// other. Close logs out, and unloads the module when no other key in it is open.
type Key interface {
	crypto.Signer
	io.Closer
}

// Open opens the key that u names. It fails, and says of which URI, if module, token or key is not there or not the only one, if the token does not take
// the PIN, or if the key is of another kind.
func Open(u *URI) (Key, error) {
	key, err := open(u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return key, nil
}
