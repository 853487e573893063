package e2p

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Clean returns s with control characters and newlines escaped: what an image
// says must neither act on a terminal nor look like a line of its own. Bytes that
// are not UTF-8 stay as they are, unless a terminal of 8 bits would act on them.
func Clean(s string) string {
	var b strings.Builder
	done := 0 // bytes of s that are in b
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			r = rune(s[i])
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			b.WriteString(s[done:i])
			fmt.Fprintf(&b, "\\x%02x", r)
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}
