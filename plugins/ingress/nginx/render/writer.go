package render

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
)

// writer writes directives, and remembers whose each is.
type writer struct {
	buf    bytes.Buffer
	depth  int
	lines  int
	owners []owner
}

const indent = "\t\t\t\t\t\t\t\t"

// line writes a directive.
func (w *writer) line(tokens ...token) { w.words(tokens, ";\n") }

// open begins a directive's block, which close ends.
func (w *writer) open(tokens ...token) {
	w.words(tokens, " {\n")
	w.depth++
}

func (w *writer) close() {
	w.depth--
	w.words(nil, "}\n")
}

func (w *writer) words(tokens []token, end string) {
	w.buf.WriteString(indent[:w.depth])
	for i, t := range tokens {
		if i > 0 {
			w.buf.WriteByte(' ')
		}
		w.buf.WriteString(string(t))
	}
	w.buf.WriteString(end)
	w.lines++
}

// snippet writes an operator-approved piece that ends no block but its own; who reads it
// says what is wrong with another.
func (w *writer) snippet(text string) {
	if text == "" {
		return
	}
	if _, err := conf.Parse(text); err != nil {
		return
	}
	text = strings.TrimRight(text, "\n") + "\n"
	w.buf.WriteString(text)
	w.lines += strings.Count(text, "\n")
}

// own says whose the next lines are; the zero name for nobody's.
func (w *writer) own(ingress types.NamespacedName) {
	if n := len(w.owners); n > 0 && w.owners[n-1].ingress == ingress {
		return
	}
	w.owners = append(w.owners, owner{line: w.lines + 1, ingress: ingress})
}

// add writes what another writer wrote.
func (w *writer) add(other *writer) {
	for _, o := range other.owners {
		w.owners = append(w.owners, owner{line: o.line + w.lines, ingress: o.ingress})
	}
	w.buf.Write(other.buf.Bytes())
	w.lines += other.lines
}

// variables are maps and the like, by the name of what they define; each is written
// once, however many locations use it.
type variables map[string]string

// define adds a map. The name is made of the content, or the content is the same for all.
func (v variables) define(name string, write func(w *writer)) token {
	if _, ok := v[name]; !ok {
		w := &writer{depth: 1}
		write(w)
		v[name] = w.buf.String()
	}
	return token("$" + name)
}

func (v variables) write(w *writer) {
	for _, name := range slices.Sorted(maps.Keys(v)) {
		w.buf.WriteString(v[name])
		w.lines += strings.Count(v[name], "\n")
	}
}
