// Package plugintest proves that a plugin keeps the component contract. Every built-in
// plugin of k3m passes it, first in process, then as the real executable; a third
// party's needs one test:
//
//	func TestContract(t *testing.T) {
//		plugintest.Run(t, plugintest.Options{
//			New:        func() sdk.Plugin { return &whoami{} },
//			Executable: plugintest.Build(t, "."),
//		})
//	}
//
// options.go has what a test may say, checks.go what holds for every plugin,
// executable.go what holds for its process; start.go starts one, in either way. The
// names of the subtests read as the contract. badplugin/ is an executable that breaks it
// in each way that a host must bear.
package plugintest
