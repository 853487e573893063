//go:build !unix

package main

// listen does nothing: there are no signals that would switch the progress.
func (p *progress) listen() (stop func()) { return func() {} }

// cpuTimes returns nothing: it is not known here.
func cpuTimes() (user, sys float64) { return 0, 0 }
