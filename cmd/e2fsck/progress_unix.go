//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// listen has SIGUSR1 switch the progress on, and SIGUSR2 off, until the function
// that it returns is called.
func (p *progress) listen() (stop func()) {
	ch := make(chan os.Signal, 4)
	done := make(chan struct{})
	signal.Notify(ch, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		defer close(done)
		for s := range ch {
			p.on.Store(s == syscall.SIGUSR1)
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}
}

// cpuTimes returns what the process has used so far.
func cpuTimes() (user, sys float64) {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0, 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(r.Utime), seconds(r.Stime)
}
