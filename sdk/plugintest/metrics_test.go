package plugintest

import "testing"

func FuzzExposition(f *testing.F) {
	for _, seed := range []string{"a 1\n", "a{b=\"c\",} 1 2\n", "# TYPE a counter\na +Inf\n", "a{b=\"\\\"\"} 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) { _ = checkExposition(text) }) // ends, and does not panic
}

func TestExposition(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		ok   bool
	}{
		"nothing":              {"", true},
		"labels, a timestamp":  {"a_total{b=\"c\\\\\", d=\"}{\",} 1e3 -5\n", true},
		"not a number":         {"a x\n", false},
		"an unknown type":      {"# TYPE a number\n", false},
		"no end":               {"a 1", false},
		"an unquoted label":    {"a{b=c} 1\n", false},
		"a name with a dash":   {"a-b 1\n", false},
		"a quote in a label":   {"a{b=\"c\"d\"} 1\n", false},
		"a value too many":     {"a 1 2 3\n", false},
		"infinity, not a word": {"a -Inf\na infinite\n", false},
	} {
		if err := checkExposition(tt.text); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
