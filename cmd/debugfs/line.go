package main

import (
	"errors"
	"strings"
)

// maxLine bounds the length of a command line, in bytes.
const maxLine = 1 << 20

var errQuote = errors.New("a quote is opened and not closed")

// splitLine splits a command line at blanks and tabs. Within double quotes they
// are part of a word, and two quotes are one.
func splitLine(line string) ([]string, error) {
	var words []string
	var w strings.Builder
	in, quoted := false, false // in a word, in quotes
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"' && quoted && i+1 < len(line) && line[i+1] == '"':
			w.WriteByte('"')
			i++
		case c == '"':
			in, quoted = true, !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			if in {
				words = append(words, w.String())
				w.Reset()
			}
			in = false
		default:
			in = true
			w.WriteByte(c)
		}
	}
	if quoted {
		return nil, errQuote
	}
	if in {
		words = append(words, w.String())
	}
	return words, nil
}

// quoteWord is the opposite of splitLine for one word.
func quoteWord(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\n\r\"") {
		return w
	}
	return `"` + strings.ReplaceAll(w, `"`, `""`) + `"`
}
