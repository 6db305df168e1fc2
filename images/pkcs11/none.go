//go:build !pkcs11

package pkcs11

import "errors"

func open(*URI) (Key, error) {
	return nil, errors.New("this program was built without PKCS #11, which takes cgo: say TAGS=pkcs11 to make (make build TAGS=pkcs11)")
}
