//go:build linux && sandboxprobe

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/fuse2fs"
)

// A build with this tag tries to escape from its own sandbox, and says what
// came of it, on standard error as lines that begin with probeLine, and as the
// value of the attribute probeXattr of any file of the mount. It is for tests.
const (
	probeLine  = "sandboxprobe: "
	probeXattr = "user.e2kit.sandboxprobe"

	// probeIA32 makes a system call by the numbers of another architecture,
	// of which the server dies.
	probeIA32 = "user.e2kit.sandboxprobe.ia32"
)

// killEscapes makes the filter kill: then a server that lives has made no
// system call that it denies.
var killEscapes = os.Getenv("FUSE2FS_PROBE_KILL") != ""

// escapes is what a stage of the confinement does to each attempt.
type escapes struct {
	Stage string            `json:"stage"`
	Got   map[string]string `json:"got"` // "ok", or the name of an errno
}

func init() {
	fuse2fs.XattrHook = func(r *fuse.Request, name string) ([]byte, bool) {
		switch name {
		case probeXattr:
			e := tryAll("on demand")
			for name, err := range r.RingEscapes() {
				e.Got["io_uring "+name] = errnoName(err)
			}
			b, _ := json.Marshal(e)
			return b, true
		case probeIA32:
			return fmt.Append(nil, int80Getpid()), true
		}
		return nil, false
	}
}

func probeEscapes(stage string) {
	if killEscapes {
		if stage == "serving" {
			go restless()
		}
		return
	}
	b, _ := json.Marshal(tryAll(stage))
	fmt.Fprintf(os.Stderr, "%s%s\n", probeLine, b)
}

// restless starts and ends threads and collects garbage, for ever.
func restless() {
	for {
		for range 8 {
			go func() {
				runtime.LockOSThread() // not unlocked: the thread ends
				_ = make([]byte, 1<<16)
				time.Sleep(time.Millisecond)
			}()
		}
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
}

// tryAll makes all attempts on a thread of its own, which ends after, since an
// attempt that succeeds may have changed it.
func tryAll(stage string) *escapes {
	done := make(chan *escapes, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- tryAll(stage) // the first thread stays
			return
		}
		e := &escapes{stage, map[string]string{}}
		for _, a := range attempts {
			e.Got[a.name] = errnoName(a.try())
		}
		done <- e
	}()
	return <-done
}

func errnoName(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
		return fmt.Sprint(int(errno))
	}
	return err.Error()
}
