package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// unitOf are the suffixes of sizes, in bytes; each also in the other case.
var unitOf = map[byte]int64{'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40, 'p': 1 << 50, 's': 512}

// ParseSize returns the bytes that s stands for: a number, decimal, or hex or
// octal by its prefix, and a suffix k, m, g, t or p for the powers of 1024 or s
// for sectors of 512 bytes. A number alone is in units of unit bytes. The error
// is a *UsageError.
func ParseSize(s string, unit int64) (int64, error) {
	digits := s
	if s != "" {
		// A hex digit is no suffix: none of the letters is one.
		if u, ok := unitOf[s[len(s)-1]|0x20]; ok {
			unit, digits = u, s[:len(s)-1]
		}
	}
	if strings.Contains(digits, "_") {
		return 0, usage("%q is not a size", s)
	}
	n, err := strconv.ParseUint(digits, 0, 63)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > 0 && int64(n) > math.MaxInt64/unit:
		return 0, usage("size %s is too large", s)
	case err != nil:
		return 0, usage("%q is not a size", s)
	}
	return int64(n) * unit, nil
}

// ParseBool reads the value of an option that is on or off; an option without a
// value is on.
func ParseBool(o Option) (bool, error) {
	if !o.HasValue {
		return true, nil
	}
	switch strings.ToLower(o.Value) {
	case "1", "on", "yes", "true":
		return true, nil
	case "0", "off", "no", "false":
		return false, nil
	}
	return false, usage("option %s: %q is neither on nor off", o.Name, o.Value)
}

// ParseUint reads the value of an option that is a number up to limit.
func ParseUint(o Option, limit uint64) (uint64, error) {
	n, err := strconv.ParseUint(o.Value, 0, 64)
	if !o.HasValue || err != nil || strings.Contains(o.Value, "_") {
		return 0, usage("option %s: %q is not a number", o.Name, o.Value)
	}
	if n > limit {
		return 0, usage("option %s: %d is more than %d", o.Name, n, limit)
	}
	return n, nil
}
