package sandbox

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// namespaces prints what a process in namespaces of its own sees.
func namespaces() {
	links, err := net.Interfaces()
	fmt.Println("interfaces", len(links), err)
	for _, ns := range []string{"net", "ipc", "uts", "cgroup"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		fmt.Println(ns, link, err)
	}
}

func TestStart(t *testing.T) {
	var out bytes.Buffer
	calls := 0
	cmd, names, err := Start(func() *exec.Cmd {
		calls++
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "SANDBOX_TEST=namespaces")
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if names == nil {
		t.Skipf("no namespaces can be made here; ran in ours, after %d tries", calls)
	}
	if !strings.Contains(out.String(), "interfaces 1 ") { // lo, which is down
		t.Errorf("not in an empty network:\n%s", out.String())
	}
	for _, ns := range []string{"net", "ipc", "uts", "cgroup"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), link) {
			t.Errorf("still in our namespace %s", link)
		}
	}
}

// What cannot be started tells why, and not that there are no namespaces.
func TestStartFails(t *testing.T) {
	_, names, err := Start(func() *exec.Cmd { return exec.Command("/nonexistent/program") })
	if !os.IsNotExist(err) || names != nil {
		t.Errorf("%v, %v", names, err)
	}
}

func TestProbe(t *testing.T) {
	for _, p := range Probe() {
		t.Logf("%-14s %-5v %s", p.Name, p.Have, p.Detail)
		if p.Name == "" || p.Detail == "" {
			t.Errorf("%+v says nothing", p)
		}
	}
}
