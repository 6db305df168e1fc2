//go:build pkcs11

package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"strings"

	p11 "github.com/miekg/pkcs11"
)

// What the environment says where a URI does not.
const (
	moduleVariable = "COSI_PKCS11_MODULE"
	pinVariable    = "COSI_PKCS11_PIN"
)

// pin is the PIN that u names.
func (u *URI) pin() (string, error) {
	if pin, said := u.how["pin-value"]; said {
		return pin, nil
	}
	if file, said := u.how["pin-source"]; said {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("pin-source: %w", err)
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	if pin := os.Getenv(pinVariable); pin != "" {
		return pin, nil
	}
	return "", fmt.Errorf("no PIN: want pin-source=FILE behind the \"?\", or %s in the environment", pinVariable)
}

// login logs in to a token, once. Whoever is logged in already stays so.
func (m *module) login(session p11.SessionHandle, token p11.TokenInfo, pin string) error {
	if err := mayTry(token.Flags); err != nil {
		return err
	}
	err := m.Login(session, p11.CKU_USER, pin)
	switch {
	case errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)):
		return nil
	case errors.Is(err, p11.Error(p11.CKR_PIN_INCORRECT)):
		return fmt.Errorf("the PIN is wrong; it was tried once, as tokens lock themselves: %w", err)
	}
	return err
}

// mayTry says why a PIN must not be tried, by the flags of a token.
func mayTry(flags uint) error {
	switch {
	case flags&p11.CKF_USER_PIN_LOCKED != 0:
		return errors.New("its PIN is locked")
	case flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return errors.New("it was given wrong PINs, and the next one would lock it: a build does not risk that, log in to it by another program first")
	}
	return nil
}
