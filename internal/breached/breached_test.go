package breached

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTheListIsWhatItSays(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.Trim(list(), "\n"), "\n")
	require.Len(t, lines, 17_950)
	require.True(t, slices.IsSorted(lines))
	require.Len(t, slices.Compact(slices.Clone(lines)), len(lines))
	for _, line := range lines {
		require.Equal(t, Fold(line), line)
		require.GreaterOrEqual(t, utf8.RuneCountInString(line), 8, line)
	}
}

func TestHas(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"password", "PassWord1", "12345678", "qwertyuiop", "trustno1", "p@ssw0rd", "ｉｌｏｖｅｙｏｕ", "SUNSHINE"} {
		require.True(t, Has(bad), bad)
	}
	all := strings.Split(strings.Trim(list(), "\n"), "\n")
	for _, good := range []string{
		"", "\n", "asswordq", "password1\n", "\npassword1", all[0] + "\n" + all[1], "correct horse battery", "password of mine", "pässwörd",
	} {
		require.False(t, Has(good), good)
	}
	require.True(t, Has(all[0]) && Has(all[len(all)-1]))
}
