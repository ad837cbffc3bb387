// Package conf reads the language of nginx's configuration: words, quotes, comments,
// blocks. It knows no directive. Snippets are checked with it before they are taken, and
// what render writes is checked with it in tests.
package conf

import (
	"errors"
	"fmt"
	"io"
)

// Directive is one directive with its words, and those of its block.
type Directive struct {
	Words []string
	// Block is nil for a directive that ends with a semicolon.
	Block []Directive
	// Line counts from 1.
	Line int
}

// maxDepth bounds blocks in blocks.
const maxDepth = 20

// Parse reads text. Its error says the line.
func Parse(text string) ([]Directive, error) {
	l := &lexer{text: text, line: 1}
	block, err := l.block(0)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", l.line, err)
	}
	return block, nil
}

type lexer struct {
	text string
	at   int
	line int
}

var errEnd = errors.New("the text ends within a directive or a block")

// block reads directives up to the block's end, or the text's at depth 0.
func (l *lexer) block(depth int) ([]Directive, error) {
	block := []Directive{}
	if depth > maxDepth {
		return nil, fmt.Errorf("blocks in blocks, more than %d deep", maxDepth)
	}
	var words []string
	first := 0
	for {
		word, quoted, err := l.word()
		switch {
		case errors.Is(err, io.EOF) && depth == 0 && len(words) == 0:
			return block, nil
		case errors.Is(err, io.EOF):
			return nil, errEnd
		case err != nil:
			return nil, err
		case quoted || word != ";" && word != "{" && word != "}":
			if len(words) == 0 {
				first = l.line
			}
			words = append(words, word)
			continue
		case word == "}" && depth > 0 && len(words) == 0:
			return block, nil
		case word == "}" || len(words) == 0:
			return nil, fmt.Errorf("unexpected %q", word)
		}
		directive := Directive{Words: words, Line: first}
		if word == "{" {
			if directive.Block, err = l.block(depth + 1); err != nil {
				return nil, err
			}
		}
		block = append(block, directive)
		words = nil
	}
}

// word reads the next word (io.EOF without one), or one of ; { }, which quoted tells from the same in quotes.
func (l *lexer) word() (word string, quoted bool, err error) {
	l.space()
	if l.at == len(l.text) {
		return "", false, io.EOF
	}
	switch c := l.text[l.at]; c {
	case ';', '{', '}':
		l.at++
		return string(c), false, nil
	case '"', '\'':
		word, err := l.quoted(c)
		return word, true, err
	}
	var out []byte
	for ; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '\\':
			if l.at+1 == len(l.text) {
				return "", false, errEnd
			}
			out = append(out, c, l.text[l.at+1])
			l.count(l.text[l.at+1])
			l.at++
			continue
		case c == '{' && l.at > 0 && l.text[l.at-1] == '$':
		case c == ';' || c == '{' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
			// A closing brace is none within a word.
			return string(out), true, nil
		}
		out = append(out, l.text[l.at])
	}
	return "", false, errEnd
}

// quoted reads up to the closing quote, which something must end.
func (l *lexer) quoted(quote byte) (string, error) {
	var out []byte
	for l.at++; l.at < len(l.text); l.at++ {
		c := l.text[l.at]
		l.count(c)
		if c == quote {
			l.at++
			if l.at < len(l.text) {
				switch l.text[l.at] {
				case ' ', '\t', '\r', '\n', ';', '{', ')':
				default:
					return "", fmt.Errorf("unexpected %q after a closing quote", l.text[l.at])
				}
			}
			return string(out), nil
		}
		if c == '\\' && l.at+1 < len(l.text) {
			l.at++
			switch next := l.text[l.at]; next {
			case '"', '\'', '\\':
				out = append(out, next)
			default:
				l.count(next)
				out = append(out, c, next)
			}
			continue
		}
		out = append(out, c)
	}
	return "", errEnd
}

// space skips what is between words.
func (l *lexer) space() {
	for ; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; c {
		case ' ', '\t', '\r':
		case '\n':
			l.line++
		case '#':
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.at++
			}
			if l.at == len(l.text) {
				return
			}
			l.line++
		default:
			return
		}
	}
}

func (l *lexer) count(c byte) {
	if c == '\n' {
		l.line++
	}
}
