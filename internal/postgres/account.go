package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the user that the server runs as.
type account struct {
	name     string
	uid, gid uint32
	other    bool // not the user of this process, which then is root
}

// chooseAccount picks the user for the cluster. Only root has a choice to make: a cluster that exists keeps its
// owner, so that the user who made it can go on without root.
func chooseAccount(cluster string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	if info, err := os.Stat(cluster); err == nil {
		if uid, gid, known := owner(info); known && uid != 0 {
			return account{name: "user id " + strconv.Itoa(int(uid)), uid: uid, gid: gid, other: true}, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return account{}, fmt.Errorf("look at the cluster: %w", err)
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil || uid == 0 {
			continue
		}
		return account{name: name, uid: uint32(uid), gid: uint32(gid), other: true}, nil
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
}

// own gives a file to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	if err := os.Lchown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to %s: %w", path, a.name, err)
	}
	return nil
}

// unreachable returns the first folder on the way to dir, and dir itself, that the account may not pass through, and "" where
// there is none. It goes by the mode bits; the account is started with no group but its own.
func (a account) unreachable(dir string) (string, error) {
	if !a.other {
		return "", nil
	}
	var chain []string
	for at := dir; ; at = filepath.Dir(at) {
		chain = append(chain, at)
		if at == filepath.Dir(at) {
			break
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		info, err := os.Stat(chain[i])
		if err != nil {
			return "", fmt.Errorf("look at %s: %w", chain[i], err)
		}
		uid, gid, known := owner(info)
		if !known {
			continue
		}
		bit := fs.FileMode(0o001)
		switch {
		case uid == a.uid:
			bit = 0o100
		case gid == a.gid:
			bit = 0o010
		}
		if info.Mode().Perm()&bit == 0 {
			return chain[i], nil
		}
	}
	return "", nil
}
