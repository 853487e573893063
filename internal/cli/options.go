package cli

import "strings"

// An Option is one of a list as mount -o and mke2fs -E take it.
type Option struct {
	Name     string
	Value    string
	HasValue bool // there was a "="
}

func (o Option) String() string {
	if !o.HasValue {
		return o.Name
	}
	return o.Name + "=" + o.Value
}

// ParseOptions splits a list at its commas. A comma is part of a value after a
// backslash, as libfuse has it, or within double quotes that begin the value,
// as libmount has it. Empty items are left out. The error is a *UsageError.
func ParseOptions(list string) ([]Option, error) {
	var out []Option
	for list != "" {
		item, rest, err := cutOption(list)
		if err != nil {
			return nil, err
		}
		list = rest
		if item.Name == "" && !item.HasValue {
			continue
		}
		if item.Name == "" {
			return nil, usage("option %q has no name", item)
		}
		out = append(out, item)
	}
	return out, nil
}

// cutOption reads one item up to its comma.
func cutOption(list string) (o Option, rest string, err error) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '"' && quoted:
			quoted = false
		case c == '"' && o.HasValue && b.Len() == 0:
			quoted = true
		case c == '\\' && !quoted && i+1 < len(list):
			i++
			b.WriteByte(list[i])
		case c == '=' && !o.HasValue && !quoted:
			o.Name, o.HasValue = b.String(), true
			b.Reset()
		case c == ',' && !quoted:
			o.set(b.String())
			return o, list[i+1:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return o, "", usage("the value of option %s ends within quotes", o.Name)
	}
	o.set(b.String())
	return o, "", nil
}

func (o *Option) set(s string) {
	if o.HasValue {
		o.Value = s
	} else {
		o.Name = s
	}
}
