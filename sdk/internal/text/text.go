// Package text makes words that crossed a process boundary fit to be shown.
package text

import (
	"fmt"
	"strings"
	"unicode"
)

// Clean makes s fit for a log, a terminal and a status field: what doesn't print is
// replaced, and it is cut after most bytes. New lines and tabs stay.
func Clean(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// Strings returns the text of each value.
func Strings[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
