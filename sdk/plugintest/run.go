package plugintest

import "testing"

// Run checks the plugin in process, if o.New is given, and as an executable, if
// o.Executable is. The subtests' names are the contract.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.New == nil && o.Executable == "" {
		t.Fatal("plugintest.Run: give New, Executable or both")
	}
	if o.New != nil {
		t.Run("in process", func(t *testing.T) { InProcess(t, o) })
	}
	if o.Executable != "" {
		t.Run("as an executable", func(t *testing.T) { Executable(t, o) })
	}
}

// InProcess checks the component that o.New makes, over gRPC inside the test's process.
func InProcess(t *testing.T, o Options) {
	t.Helper()
	o = o.withDefaults(t)
	checkInfo(t, o, inProcess(o))
	checkConfig(t, o, inProcess(o))
	checkRun(t, o, inProcess(o))
	checkCleanup(t, o, inProcess(o))
}

// Executable checks o.Executable as a process, the way k3m starts it.
func Executable(t *testing.T, o Options) {
	t.Helper()
	o = o.withDefaults(t)
	if !t.Run("it starts and shakes hands", func(t *testing.T) { asExecutable(o)(t) }) {
		return // all else would only say the same again
	}
	checkManners(t, o)
	checkInfo(t, o, asExecutable(o))
	checkConfig(t, o, asExecutable(o))
	checkRun(t, o, asExecutable(o))
	checkEnd(t, o)
	checkCleanup(t, o, asExecutable(o))
}
