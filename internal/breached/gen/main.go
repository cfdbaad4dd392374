// Gen makes the list of package breached of an npm package's tarball, which it reads from the standard input:
//
//	npm pack @zxcvbn-ts/language-common@4.1.3
//	go run ./internal/breached/gen <zxcvbn-ts-language-common-4.1.3.tgz >internal/breached/list.gz
package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/pgoutbox/pgoutbox/internal/breached"
)

const (
	source   = "package/src/passwords.json"
	shortest = 8 // what is shorter is refused for that
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(tarball io.Reader, list io.Writer) error {
	all, err := read(tarball)
	if err != nil {
		return err
	}
	for i := range all {
		all[i] = breached.Fold(all[i])
	}
	all = slices.DeleteFunc(all, func(password string) bool { return utf8.RuneCountInString(password) < shortest })
	slices.Sort(all)
	compressed, err := gzip.NewWriterLevel(list, gzip.BestCompression)
	if err != nil {
		return err
	}
	lines := bufio.NewWriter(compressed)
	for _, password := range slices.Compact(all) {
		_, _ = lines.WriteString(password + "\n") // Flush tells
	}
	return errors.Join(lines.Flush(), compressed.Close())
}

func read(tarball io.Reader) (all []string, err error) {
	unpacked, err := gzip.NewReader(tarball)
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unpacked)
	for {
		file, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", source, err)
		}
		if file.Name == source {
			err := json.NewDecoder(files).Decode(&all)
			return all, err
		}
	}
}
