package handlers

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/breached"
)

// Limits of what a customer may send.
const (
	minPassword    = 8
	maxPassword    = 128
	maxName        = 200
	maxEmail       = 254
	maxEmailLocal  = 64
	maxQuantity    = 1000 // of one line
	maxLines       = 100  // of one cart
	maxMethodBytes = 64
)

var (
	domainForm = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	skuForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	methodForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)
)

// collector gathers what is wrong with a request, so that one answer names all of it. It never repeats a value.
type collector struct{ errs []fieldError }

func (v *collector) refuse(pointer, format string, args ...any) {
	v.errs = append(v.errs, fieldError{pointer, fmt.Sprintf(format, args...)})
}

func (v *collector) problem() error {
	if len(v.errs) == 0 {
		return nil
	}
	return validation(v.errs)
}

// email returns the address without the space around it. It takes what mail servers take everywhere: name@host in
// ASCII, no quotes, no comments, no display name.
func (v *collector) email(pointer, value string) string {
	value = strings.TrimSpace(value)
	switch parsed, err := mail.ParseAddress(value); {
	case value == "":
		v.refuse(pointer, "is required")
	case len(value) > maxEmail:
		v.refuse(pointer, "must have at most %d characters", maxEmail)
	case err != nil || parsed.Name != "" || parsed.Address != value || !plainAddress(value):
		v.refuse(pointer, "must be an email address like ada@example.com")
	}
	return value
}

func plainAddress(address string) bool {
	at := strings.LastIndexByte(address, '@')
	local, domain := address[:at], address[at+1:]
	for _, r := range local {
		if r > unicode.MaxASCII {
			return false
		}
	}
	return len(local) <= maxEmailLocal && !strings.ContainsAny(local, `"\`) && domainForm.MatchString(domain)
}

// password judges the form in which it will be hashed. There are no rules of composition; what is refused is what is tried first.
func (v *collector) password(pointer, value, email, name string) {
	value = normal(value)
	switch n := utf8.RuneCountInString(value); {
	case n == 0:
		v.refuse(pointer, "is required")
	case n < minPassword || n > maxPassword:
		v.refuse(pointer, "must have %d to %d characters", minPassword, maxPassword)
	case breached.Has(value) || isRun(value):
		v.refuse(pointer, "is among the passwords that attackers try first")
	case isAbout(value, email, name):
		v.refuse(pointer, "must not be your address or name, or ours")
	}
}

// isRun reports whether each character follows from the one before: 11111111, 23456789, hgfedcba.
func isRun(password string) bool {
	all := []rune(breached.Fold(password))
	for i := 2; i < len(all); i++ {
		if all[i]-all[i-1] != all[1]-all[0] {
			return false
		}
	}
	return len(all) > 1 && max(all[0], all[1])-min(all[0], all[1]) <= 1
}

// isAbout reports whether the letters and digits of the password are those of the person's address or name, or of the service.
func isAbout(password, email, name string) bool {
	local, host, _ := strings.Cut(email, "@")
	password = letters(password)
	for _, word := range append(strings.Fields(name), email, local, host, name, "pgoutbox") {
		if password != "" && password == letters(word) {
			return true
		}
	}
	return false
}

func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, breached.Fold(s))
}

// name returns the name without the space around it.
func (v *collector) name(pointer, value string) string {
	value = strings.TrimSpace(value)
	switch {
	case value == "":
		v.refuse(pointer, "is required")
	case utf8.RuneCountInString(value) > maxName:
		v.refuse(pointer, "must have at most %d characters", maxName)
	case strings.ContainsFunc(value, unicode.IsControl):
		v.refuse(pointer, "must not contain control characters")
	}
	return value
}

func (v *collector) required(pointer, value string) {
	if value == "" {
		v.refuse(pointer, "is required")
	}
}

func (v *collector) sku(pointer, value string) {
	switch {
	case value == "":
		v.refuse(pointer, "is required")
	case !skuForm.MatchString(value):
		v.refuse(pointer, unknownSKU)
	}
}

const unknownSKU = "is no product of the catalogue"

func (v *collector) quantity(pointer string, value *int) {
	switch {
	case value == nil:
		v.refuse(pointer, "is required")
	case *value < 1 || *value > maxQuantity:
		v.refuse(pointer, "must be 1 to %d", maxQuantity)
	}
}

func (v *collector) paymentMethod(pointer, value string) {
	switch {
	case value == "":
		v.refuse(pointer, "is required")
	case !methodForm.MatchString(value):
		v.refuse(pointer, "must be 1 to %d of A-Z a-z 0-9 _", maxMethodBytes)
	}
}

// pathID is an id in the path; what cannot be one is as unknown as one that is nobody's.
func pathID(value, what string) (uuid.UUID, error) {
	id, err := uuid.Parse(value)
	if err != nil || len(value) != 36 {
		return uuid.Nil, notFound(what)
	}
	return id, nil
}
