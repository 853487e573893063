//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/olekukonko/tablewriter"
	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// offerArg makes the program print what the kernel offers to a server, as JSON.
// It is for probe, which runs it in a user namespace.
const offerArg = "--offer-on-standard-output"

// report is what --probe finds. Its JSON keys stay; new ones may come.
type report struct {
	*fuse.Probe
	Sandbox []sandbox.Part `json:"sandbox"`
	Would   would          `json:"would"`
}

// would says what a mount would be like.
type would struct {
	Possible   bool     `json:"possible"`
	Mount      string   `json:"mount"`       // how it would be made; "" if it is not possible
	Type       string   `json:"type"`        // "fuseblk", "fuse"
	DataPath   string   `json:"data_path"`   // see dataPath
	DataNot    []string `json:"data_not"`    // why not a better one
	Requests   string   `json:"requests"`    // how they come: "io_uring", "/dev/fuse"
	Sandbox    string   `json:"confined"`    // "strict", or "partly"
	SandboxNot []string `json:"sandbox_not"` // what is lacking
}

// probe prints what a mount by this user would be, and why not a better one.
func probe(c *cli.Context) error {
	r := &report{Probe: fuse.NewProbe(offerInNamespace), Sandbox: sandbox.Probe()}
	r.Would = r.would()
	var err error
	if c.Bool("json") {
		enc := json.NewEncoder(c.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(c.Stdout)
	}
	if err == nil && !r.Would.Possible {
		return &cli.Exit{Status: exitUsage}
	}
	return err
}

func (r *report) would() would {
	w := would{Possible: r.Possible(), Type: "fuse", Sandbox: "strict", DataNot: []string{}, SandboxNot: []string{}}
	switch {
	case r.Direct.Have == fuse.Yes:
		w.Mount = "by system call"
	case r.Helper.Have == fuse.Yes:
		w.Mount = "by fusermount3"
	case r.Namespace.Have == fuse.Yes:
		w.Mount = "in a user namespace"
	default:
		w.Type = ""
	}
	if w.Mount != "" {
		var whyNot []string
		w.DataPath, whyNot = dataPath(fuse.Paths{Iomap: r.Iomap, ZeroCopy: r.ZeroCopy, IOUring: r.IOUring})
		w.DataNot = append(w.DataNot, whyNot...)
		w.Requests = pathDevFuse
		if r.IOUring.Have == fuse.Yes {
			w.Requests = pathIOUring
		}
		if r.Direct.Have == fuse.Yes && r.Fuseblk.Have == fuse.Yes {
			w.Type = "fuseblk"
		}
	}
	for _, p := range r.Sandbox {
		if !p.Have {
			w.Sandbox = "partly"
			w.SandboxNot = append(w.SandboxNot, p.Name+": "+p.Detail)
		}
	}
	return w
}

func (r *report) print(out io.Writer) error {
	t := tablewriter.NewWriter(out)
	t.SetBorder(false)
	t.SetAutoWrapText(false)
	t.SetAlignment(tablewriter.ALIGN_LEFT)
	t.SetNoWhiteSpace(true)
	t.SetTablePadding("  ")
	row := func(what, have, detail string) { t.Append([]string{what, have, detail}) }
	find := func(what string, f fuse.Finding) { row(what, string(f.Have), f.Detail) }

	row("kernel", r.Kernel, "")
	how := map[string]string{
		"init":    "asked with a mount that nobody sees",
		"release": "at least, by the kernel's release; " + r.Protocol.Why,
		"unknown": r.Protocol.Why,
	}[r.Protocol.From]
	row("FUSE protocol", fmt.Sprintf("%d.%d", r.Protocol.Major, r.Protocol.Minor), how)
	row("user", fmt.Sprint(r.UID), "")
	find("/dev/fuse", r.DevFuse)
	find("mount by system call", r.Direct)
	find("mount by fusermount3", r.Helper)
	find("mount in a user namespace", r.Namespace)
	find("mount as a block device", r.Fuseblk)
	find("loop devices", r.LoopDev)
	find("synchronous INIT", r.SyncInit)
	find("idmapped mounts", r.IDMapped)
	iomap := r.Iomap
	switch r.IomapProfile {
	case "":
	case "unknown":
		iomap.Detail += "; which ABI shows when a file is used"
	default:
		iomap.Detail += ", ABI " + r.IomapProfile
	}
	find("fuse-iomap", iomap)
	find("FUSE over io_uring", r.IOUring)
	find("zero-copy", r.ZeroCopy)
	find("passthrough", r.Passthrough)
	row("largest request", fmt.Sprint(r.MaxPages), "pages")
	for _, p := range r.Sandbox {
		have := fuse.No
		if p.Have {
			have = fuse.Yes
		}
		row("sandbox: "+p.Name, string(have), p.Detail)
	}
	t.Render()
	return r.verdict(out)
}

func (r *report) verdict(out io.Writer) error {
	w := &r.Would
	var b strings.Builder
	if !w.Possible {
		fmt.Fprintf(&b, "\nThis user cannot mount: see the three ways above.\n")
	} else {
		fmt.Fprintf(&b, "\nA mount would be made %s, of type %s; its data would go through %s,\nand requests come by %s.\n",
			w.Mount, w.Type, w.DataPath, w.Requests)
		for _, why := range w.DataNot {
			fmt.Fprintf(&b, "  not by %s\n", why)
		}
		fmt.Fprintf(&b, "The server would be confined")
		if len(w.SandboxNot) == 0 {
			fmt.Fprintf(&b, " by all parts of the sandbox.\n")
		} else {
			fmt.Fprintf(&b, ", but without:\n")
		}
		for _, why := range w.SandboxNot {
			fmt.Fprintf(&b, "  %s\n", why)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// offerInNamespace asks for the offer as root of a new user namespace.
func offerInNamespace() (*fuse.Offer, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"fuse2fs", offerArg}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("a user namespace cannot be made: %w", err)
	}
	var a struct {
		Offer *fuse.Offer
		Err   string
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return nil, fmt.Errorf("in a user namespace: %w", err)
	}
	if a.Err != "" {
		return nil, fmt.Errorf("in a user namespace: %s", a.Err)
	}
	return a.Offer, nil
}

// printOffer is that process.
func printOffer(out io.Writer) int {
	a := map[string]any{}
	if offer, err := fuse.ProbeOffer(); err != nil {
		a["Err"] = err.Error()
	} else {
		a["Offer"] = offer
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return 1
	}
	return 0
}
