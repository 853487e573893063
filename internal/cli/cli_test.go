package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	ucli "github.com/urfave/cli/v2"
)

var testOpts = []Opt{
	{Names: []string{"v", "verbose"}},
	{Names: []string{"n"}},
	{Names: []string{"o", "options"}, Arg: RequiredArg},
	{Names: []string{"offset"}, Arg: RequiredArg},
	{Names: []string{"c", "color"}, Arg: OptionalArg},
}

func TestGetopt(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a b", "| a b"},
		{"-v a -n b", "v n | a b"},
		{"-vn a", "v n | a"},
		{"-vofoo a", "v o=foo | a"},
		{"-o foo -- -v", "o=foo | -v"},
		{"-o -v a", "o=-v | a"},
		{"a - b", "| a - b"},
		{"--verbose --options=x,y=z --offset 5", "verbose options=x,y=z offset=5 |"},
		{"--verb --opt x", "verbose options=x |"},
		{"--off=1", "offset=1 |"},
		{"-c a -cred --color b --color=", "c c=red color color= | a b"},
		{"--o x", "error: option --o may be --options or --offset"},
		{"--nothing", "error: unknown option --nothing"},
		{"-vx", "error: unknown option -x"},
		{"-o", "error: option -o needs a value"},
		{"--offset", "error: option --offset needs a value"},
		{"--verbose=1", "error: option --verbose takes no value"},
	} {
		found, operands, err := Getopt(strings.Fields(c.in), testOpts, false)
		var got []string
		for _, f := range found {
			if f.HasValue {
				got = append(got, f.Name+"="+f.Value)
			} else {
				got = append(got, f.Name)
			}
		}
		s := strings.Join(append(append(got, "|"), operands...), " ")
		if err != nil {
			s = "error: " + err.Error()
		}
		if s != c.want {
			t.Errorf("%s: got %s, want %s", c.in, s, c.want)
		}
	}
	_, operands, err := Getopt([]string{"-v", "a", "-n"}, testOpts, true)
	if err != nil || !slices.Equal(operands, []string{"a", "-n"}) {
		t.Errorf("posix: %q, %v", operands, err)
	}
}

func FuzzGetopt(f *testing.F) {
	f.Add("-vofoo\x00a\x00--\x00-n")
	f.Add("--opt=x\x00-c\x00--color")
	f.Fuzz(func(t *testing.T, in string) {
		args := strings.Split(in, "\x00")
		found, operands, err := Getopt(args, testOpts, false)
		if err != nil {
			return
		}
		// What was found, spelled out, is found again.
		var again []string
		for _, f := range found {
			dash := "--"
			if isShort(f.Name) {
				dash = "-"
			}
			switch {
			case f.Opt.Arg == NoArg || !f.HasValue:
				again = append(again, dash+f.Name)
			case dash == "--":
				again = append(again, dash+f.Name+"="+f.Value)
			case f.Value == "":
				again = append(again, dash+f.Name, "")
			default:
				again = append(again, dash+f.Name+f.Value)
			}
		}
		found2, operands2, err := Getopt(append(append(again, "--"), operands...), testOpts, false)
		if err != nil || !slices.Equal(found, found2) || !slices.Equal(operands, operands2) {
			t.Errorf("%q\n%v %q\n%v %q %v", args, found, operands, found2, operands2, err)
		}
	})
}

func TestParseOptions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"ro", "[ro]"},
		{"ro,,offset=5,", "[ro][offset=5]"},
		{`fsname=a\,b,rw`, "[fsname=a,b][rw]"},
		{`context="a,b=c",rw`, "[context=a,b=c][rw]"},
		{`a=b=c`, "[a=b=c]"},
		{`a=b\`, `[a=b\]`},
		{"=x", "error"},
		{`a="b`, "error"},
	} {
		opts, err := ParseOptions(c.in)
		var got strings.Builder
		for _, o := range opts {
			fmt.Fprintf(&got, "[%s]", o)
		}
		if err != nil {
			got.Reset()
			got.WriteString("error")
		}
		if got.String() != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got.String(), c.want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add(`ro,a="b,c",d=e\,f`)
	f.Fuzz(func(t *testing.T, in string) {
		opts, err := ParseOptions(in)
		if err == nil && len(opts) > len(in) {
			t.Errorf("%q: %d options", in, len(opts))
		}
	})
}

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		unit int64
		want int64 // -1 is an error
	}{
		{"0", 1, 0}, {"100", 1, 100}, {"100", 4096, 409600}, {"1k", 4096, 1024}, {"2M", 1, 2 << 20},
		{"3g", 1, 3 << 30}, {"1T", 1, 1 << 40}, {"8s", 4096, 4096}, {"0x10", 1, 16}, {"010", 1, 8},
		{"", 1, -1}, {"k", 1, -1}, {"-1", 1, -1}, {"1x", 1, -1}, {"1kk", 1, -1}, {"1_0", 1, -1},
		{"9223372036854775807", 1, 1<<63 - 1}, {"9223372036854775807", 2, -1}, {"9000000t", 1, -1},
		{"99999999999999999999", 1, -1}, {" 1", 1, -1},
	} {
		got, err := ParseSize(c.in, c.unit)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%q: got %d, %v, want %d", c.in, got, err, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	var got *Context
	cmd := &Command{
		Name: "tool", Args: "device", UsageStatus: 16, Optional: []string{"c"},
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "verbose", Aliases: []string{"v"}},
			&ucli.StringSliceFlag{Name: "o"},
			&ucli.StringFlag{Name: "c"},
			&ucli.IntFlag{Name: "b"},
		},
		Action: func(c *Context) error {
			got = c
			switch c.Args().First() {
			case "bad":
				return &fs.PathError{Op: "open", Path: "bad\n", Err: syscall.ENOENT}
			case "four":
				return &Exit{4, errors.New("four")}
			case "usage":
				return Usagef("one device at a time")
			}
			return nil
		},
	}
	run := func(args ...string) (status int, out, err string) {
		var o, e bytes.Buffer
		status = cmd.Main(args, strings.NewReader(""), &o, &e)
		return status, o.String(), e.String()
	}
	if status, _, e := run("dev", "-vo", "a,b", "-oc", "-b5", "--", "-x"); status != 0 {
		t.Fatalf("status %d: %s", status, e)
	}
	if !got.Bool("verbose") || got.Int("b") != 5 ||
		!reflect.DeepEqual(got.StringSlice("o"), []string{"a,b", "c"}) ||
		!slices.Equal(got.Operands(), []string{"dev", "-x"}) {
		t.Errorf("got %v %v %q %q", got.Bool("verbose"), got.Int("b"), got.StringSlice("o"), got.Operands())
	}
	for _, c := range []struct {
		args   string
		status int
		err    string
	}{
		{"bad", 1, "tool: bad\\x0a: no such file or directory\n"},
		{"four", 4, "tool: four\n"},
		{"usage", 16, "tool: one device at a time\nusage: tool [options] device\n"},
		{"-q", 16, "tool: unknown option -q\nusage: tool [options] device\n"},
	} {
		if status, _, e := run(strings.Fields(c.args)...); status != c.status || e != c.err {
			t.Errorf("%s: status %d, %q; want %d, %q", c.args, status, e, c.status, c.err)
		}
	}
	if status, _, _ := run("-b", "x"); status != 16 {
		t.Errorf("-b x: status %d", status)
	}
	if status, out, _ := run("-h"); status != 0 || !strings.Contains(out, "--verbose, -v") {
		t.Errorf("-h: status %d, %s", status, out)
	}
	args := os.Args // which urfave/cli looks at to complete
	defer func() { os.Args = args }()
	os.Args = []string{"tool", "--ver", completionFlag}
	if status, out, _ := run("--ver", completionFlag); status != 0 || !strings.Contains(out, "--verbose") {
		t.Errorf("completion: status %d, %q", status, out)
	}
}

func TestAsk(t *testing.T) {
	var out bytes.Buffer
	p := &Prompter{In: strings.NewReader("x\nn\n\na\n"), Out: &out}
	for i, want := range []bool{false, true, true, true} {
		got, err := p.Ask("Fix", true, true)
		if err != nil || got != want {
			t.Errorf("answer %d is %v, %v", i, got, err)
		}
	}
	p = &Prompter{In: strings.NewReader(""), Out: &out}
	if got, err := p.Ask("Fix", false, false); got || err != nil {
		t.Errorf("no input: %v, %v", got, err)
	}
}
