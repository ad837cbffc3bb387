package apiserver

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// EnvDir is the directory into which TestServe writes kubeconfig, an administrator's.
const EnvDir = "K3M_TEST_APISERVER_DIR"

// TestServe is for the tests of modules whose dependencies clash with the API server's: they build this package's test
// executable and start it. It serves until its standard input ends.
func TestServe(t *testing.T) {
	dir := os.Getenv(EnvDir)
	if dir == "" {
		t.Skip("started by the tests of another module, with " + EnvDir)
	}
	admin := Start(t)
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: admin.Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: admin.BearerToken}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	unfinished := filepath.Join(dir, "unfinished")
	if err := clientcmd.WriteToFile(*config, unfinished); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(unfinished, filepath.Join(dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Fatal(err)
	}
}
