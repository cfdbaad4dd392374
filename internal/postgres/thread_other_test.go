//go:build !linux

package postgres

func threadID() int { return 0 }

func threadGone(int) bool { return true }
