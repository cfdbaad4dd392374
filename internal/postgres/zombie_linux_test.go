package postgres

import (
	"os/exec"
	"testing"
)

// A child that has ended and was not waited for is a zombie: what a killed owner's server is where nobody reaps it.
func TestZombieIsNotAlive(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !alive(cmd.Process.Pid) {
		t.Error("a running process is alive")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !alive(cmd.Process.Pid) })
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
