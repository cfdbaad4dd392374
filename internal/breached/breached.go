// Package breached knows the passwords that attackers try first.
//
// The list is that of zxcvbn-ts (npm's @zxcvbn-ts/language-common 4.1.3, MIT: see LICENSE), which counted them in published breaches:
// those of 8 characters and more, 17,950, folded. It takes 65 kB of the binary, and 170 kB of memory once it was asked. Package gen says how
// it is made. What is not on it may be as bad: NIST SP 800-63B-4 wants such a list to be long enough to keep people from what is tried while
// the number of attempts is limited, and no rules of composition beside it.
package breached

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"
)

//go:embed list.gz
var compressed []byte

// list is a line for each password, between line ends on both sides.
var list = sync.OnceValue(func() string {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		panic(fmt.Sprintf("breached: the embedded list: %v", err))
	}
	lines, err := io.ReadAll(r)
	if err != nil {
		panic(fmt.Sprintf("breached: the embedded list: %v", err))
	}
	return "\n" + string(lines)
})

// Fold is the form in which passwords are compared with the list: compatible forms of a character are one (NFKC), and so are capital and
// small letters.
func Fold(password string) string {
	return norm.NFKC.String(strings.ToLower(norm.NFKC.String(password)))
}

// Has reports whether the password as a whole is on the list, in whatever case it is written. It is safe for concurrent use.
func Has(password string) bool {
	password = Fold(password)
	return password != "" && !strings.Contains(password, "\n") && strings.Contains(list(), "\n"+password+"\n")
}
