package cluster

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// warden is a shell that outlives this process by a moment and then clears up: it reads from a pipe whose other end this process
// alone holds, and so wakes up when this process has ended, however it did. A parent-death signal would not do: a server that hangs
// does not heed it, and its children do not get it.
type warden struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

// killing ends a family as [family.kill] does.
const killing = `
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	found=
	for p in /proc/[0-9]*; do
		case "$(readlink "$p/cwd")/" in "$2"/*) ;; *) continue ;; esac
		[ "$(readlink "$p/exe")" = "$1" ] || continue
		found=yes
		kill -KILL "${p#/proc/}"
	done
	[ -n "$found" ] || exit 0
done`

// unmounting waits for those who use the file system, whose warden works at the same time, and then takes it away from them.
const unmounting = `
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	umount "$1" && exit 0
	sleep 0.2
done
umount -l "$1"`

// onDuty keeps the pipes open: one that nobody refers to is closed when memory is cleared up, and a server that its user has lost
// sight of is to run on until the end.
var onDuty sync.Map

func startWarden(script string, args ...string) (*warden, error) {
	// The terminal's Ctrl-C is for this process, which then closes what it has.
	script = "trap '' INT TERM HUP; exec 2>/dev/null; read -r _\n" + script
	w := &warden{cmd: exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)}
	w.cmd.Dir = "/"
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a warden: %w", err)
	}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a warden: %w", err)
	}
	w.pipe = pipe
	onDuty.Store(w, true)
	return w, nil
}

// dismiss ends the warden before it does anything. A nil one is no error, nor one that has been dismissed.
func (w *warden) dismiss() {
	if w == nil || w.pipe == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = w.pipe.Close()
	w.pipe = nil
	onDuty.Delete(w)
}
