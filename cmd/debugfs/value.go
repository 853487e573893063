package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// parseUUID reads a UUID in its usual form.
func parseUUID(w string) (u [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(w, "-", ""))
	if err != nil || len(b) != len(u) || len(w) != 36 {
		return u, fmt.Errorf("%q is not a UUID", w)
	}
	return [16]byte(b), nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
