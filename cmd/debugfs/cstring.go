package main

import (
	"fmt"
	"strconv"
	"strings"
)

// cEscapes are the characters that have an escape sequence of one letter.
var cEscapes = map[byte]byte{'\a': 'a', '\b': 'b', '\f': 'f', '\n': 'n', '\t': 't', '\v': 'v', '\\': '\\', '\'': '\'', '"': '"'}

// cString returns v as C writes it in a literal, without the quotes.
func cString(v []byte) string {
	var b strings.Builder
	for _, c := range v {
		switch e := cEscapes[c]; {
		case e != 0:
			b.WriteByte('\\')
			b.WriteByte(e)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// parseCString is the opposite of cString; \x and two hexadecimal digits are a
// byte too. The text ends at a quote that is not escaped.
func parseCString(s string) (out []byte) {
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		c := s[i]
		switch {
		case c == 'x' && i+2 < len(s):
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		case c >= '0' && c <= '7':
			n := 1
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				n++
			}
			v, _ := strconv.ParseUint(s[i:i+n], 8, 16) // they are digits
			c = byte(v)
			i += n - 1
		default:
			for to, e := range cEscapes {
				if e == c {
					c = to
					break
				}
			}
		}
		out = append(out, c)
	}
	return out
}
