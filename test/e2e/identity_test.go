package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"path/filepath"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/test/harness"
)

// TestSignedRequest has a certificate request signed and uses the certificate.
func TestSignedRequest(t *testing.T) {
	t.Parallel()
	s := play(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, requests := within(t, 30*time.Second), s.client.CertificatesV1().CertificateSigningRequests()
	csr, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "jane"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "approved by the test",
	})
	if _, err := requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var cert []byte
	err = harness.Wait(ctx, requests, "jane", func(r *certificatesv1.CertificateSigningRequest) (bool, string) {
		cert = r.Status.Certificate
		return len(cert) > 0, "it has no certificate"
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.node.Config()
	if err != nil {
		t.Fatal(err)
	}
	cfg.CertData, cfg.KeyData = cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	cfg.CertFile, cfg.KeyFile = "", ""
	jane := clientOf(t, cfg)
	// Known, and without any right: 403, not 401.
	if _, err := jane.CoreV1().Pods(s.ns).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without a role: %v", err)
	}
	s.kubectl("create", "rolebinding", "jane", "--clusterrole=view", "--user=jane")
	_, err = eventually(ctx, func(ctx context.Context) (any, error) {
		return jane.CoreV1().Pods(s.ns).List(ctx, metav1.ListOptions{})
	})
	if err != nil {
		t.Errorf("with a role: %v", err)
	}
}

// TestComponentIdentity uses the network component's own kubeconfig: it may do what its
// Info lists, and nothing else.
func TestComponentIdentity(t *testing.T) {
	t.Parallel()
	s := play(t)
	path := filepath.Join(s.node.Host.DataDir, "agent", "components", "cni.flannel", "kubeconfig")
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dial = s.node.Host.Dial
	flannel, ctx := clientOf(t, cfg), within(t, 20*time.Second)
	if _, err := flannel.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("it may not list nodes, which it declares: %v", err)
	}
	if _, err := flannel.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it lists secrets: %v", err)
	}
	if err := flannel.CoreV1().Nodes().Delete(ctx, s.node.Name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it deletes nodes: %v", err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}
	if _, err := flannel.CoreV1().Pods(s.ns).Create(ctx, pod, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it creates pods: %v", err)
	}
	// Another node's object is not its own.
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "somebody-else"}}
	if _, err := s.client.CoreV1().Nodes().Create(ctx, other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.client.CoreV1().Nodes().Delete(context.Background(), other.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	patch := []byte(`{"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"203.0.113.9"}}}`)
	for _, sub := range []string{"", "status"} {
		_, err := flannel.CoreV1().Nodes().Patch(ctx, other.Name, "application/strategic-merge-patch+json", patch, metav1.PatchOptions{}, subs(sub)...)
		if err == nil {
			t.Errorf("it patches another node (%s)", sub)
		}
	}
}

func subs(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

func clientOf(t *testing.T, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
