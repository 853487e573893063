package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// ArgKind says if an option takes a value.
type ArgKind int

const (
	NoArg       ArgKind = iota
	RequiredArg         // -ovalue, -o value, --opt=value, --opt value
	OptionalArg         // -ovalue or --opt=value; a value of its own is an operand
)

// An Opt is an option that a command knows, by all of its names: those of one
// character are short.
type Opt struct {
	Names []string
	Arg   ArgKind
}

// A Found is an option that was given.
type Found struct {
	Opt      *Opt
	Name     string // the full name that was meant
	Value    string
	HasValue bool
}

// A UsageError is a command line that breaks the grammar.
type UsageError struct{ Why string }

func (e *UsageError) Error() string { return e.Why }

func usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Getopt splits args as getopt_long does. Options may follow operands, unless
// posix is set, which ends them at the first operand. "--" always ends them,
// and "-" is an operand. A long option may be cut to any length that leaves one
// option possible. The error is a *UsageError.
func Getopt(args []string, opts []Opt, posix bool) (found []Found, operands []string, err error) {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return found, append(operands, args...), nil
		case strings.HasPrefix(a, "--"):
			var f Found
			if f, args, err = long(a[2:], args, opts); err != nil {
				return nil, nil, err
			}
			found = append(found, f)
		case len(a) > 1 && a[0] == '-':
			var fs []Found
			if fs, args, err = short(a[1:], args, opts); err != nil {
				return nil, nil, err
			}
			found = append(found, fs...)
		case posix:
			return found, append(append(operands, a), args...), nil
		default:
			operands = append(operands, a)
		}
	}
	return found, operands, nil
}

func long(a string, rest []string, opts []Opt) (Found, []string, error) {
	name, value, hasValue := strings.Cut(a, "=")
	o, full, err := findLong(name, opts)
	if err != nil {
		return Found{}, nil, err
	}
	f := Found{Opt: o, Name: full, Value: value, HasValue: hasValue}
	switch {
	case o.Arg == NoArg && hasValue:
		return Found{}, nil, usage("option --%s takes no value", full)
	case o.Arg == RequiredArg && !hasValue:
		if len(rest) == 0 {
			return Found{}, nil, usage("option --%s needs a value", full)
		}
		f.Value, f.HasValue, rest = rest[0], true, rest[1:]
	}
	return f, rest, nil
}

func findLong(name string, opts []Opt) (found *Opt, full string, err error) {
	ambiguous := ""
	for i := range opts {
		for _, n := range opts[i].Names {
			if isShort(n) {
				continue
			}
			if n == name {
				return &opts[i], n, nil
			}
			if name == "" || !strings.HasPrefix(n, name) || found == &opts[i] {
				continue
			}
			if found != nil {
				ambiguous = n
				continue
			}
			found, full = &opts[i], n
		}
	}
	switch {
	case ambiguous != "":
		return nil, "", usage("option --%s may be --%s or --%s", name, full, ambiguous)
	case found == nil:
		return nil, "", usage("unknown option --%s", name)
	}
	return found, full, nil
}

func isShort(name string) bool { return utf8.RuneCountInString(name) == 1 }

// short reads a bundle of options, without its dash.
func short(a string, rest []string, opts []Opt) (found []Found, _ []string, err error) {
	for a != "" {
		_, n := utf8.DecodeRuneInString(a)
		name := a[:n]
		a = a[n:]
		o := findShort(name, opts)
		if o == nil {
			return nil, nil, usage("unknown option -%s", name)
		}
		f := Found{Opt: o, Name: name}
		switch {
		case o.Arg != NoArg && a != "":
			f.Value, f.HasValue, a = a, true, ""
		case o.Arg == RequiredArg && len(rest) == 0:
			return nil, nil, usage("option -%s needs a value", name)
		case o.Arg == RequiredArg:
			f.Value, f.HasValue, rest = rest[0], true, rest[1:]
		}
		found = append(found, f)
	}
	return found, rest, nil
}

func findShort(name string, opts []Opt) *Opt {
	for i := range opts {
		for _, n := range opts[i].Names {
			if n == name {
				return &opts[i]
			}
		}
	}
	return nil
}
