// Package text makes words that crossed a process boundary fit to be shown.
package text

import (
	"fmt"
	"strings"
	"unicode"
)

// cutMark stands where something was cut off.
const cutMark = "…"

// Clean makes s fit for a log, a terminal and a status field: what doesn't print is
// replaced, and it is cut, with a mark, after most bytes. New lines and tabs stay.
func Clean(s string, most int) string {
	head := s[:min(len(s), most)] // replacing makes nothing shorter
	clean := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, head)
	if len(s) == len(head) && len(clean) <= most {
		return clean
	}
	return strings.ToValidUTF8(clean[:min(len(clean), most)], "") + cutMark
}

// Strings returns the text of each value.
func Strings[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
