package controlplane_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/component-base/version"

	"github.com/k3m-io/k3m/core/pki"
)

// eventually waits for what a controller does; the API tells nobody that it has happened.
func eventually(t *testing.T, what string, condition func(context.Context) (bool, error)) {
	t.Helper()
	start := time.Now()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, condition); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s after %v", what, time.Since(start).Round(time.Millisecond))
}

func newNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func deleteNode(t *testing.T, name string) {
	if err := client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

func whoAmI(t *testing.T, config *rest.Config) authenticationv1.UserInfo {
	t.Helper()
	review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func TestAdmin(t *testing.T) {
	user := whoAmI(t, admin)
	if user.Username != "system:admin" || strings.Join(user.Groups, " ") != "system:masters system:authenticated" {
		t.Errorf("the kubeconfig's user is %+v", user)
	}
	if info, err := os.Stat(opts.KubeconfigPath); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", info.Mode(), err)
	}
	if !strings.HasPrefix(admin.Host, "https://127.0.0.1:") {
		t.Errorf("server %s", admin.Host)
	}
}

func TestAnonymousSeesHealthAlone(t *testing.T) {
	config := rest.AnonymousClientConfig(admin)
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/livez": 200, "/readyz": 200,
		"/readyz?verbose": 200, "/readyz/ping": 401, "/livez/etcd": 401,
		"/version": 401, "/api": 401, "/apis": 401, "/openapi/v2": 401, "/metrics": 401, "/": 401,
		"/api/v1/namespaces": 401, "/api/v1/namespaces/kube-public/configmaps/cluster-info": 401,
		"/.well-known/openid-configuration": 401,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, admin.Host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestHealthOfEveryPart(t *testing.T) {
	body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[+]etcd ok", "[+]poststarthook/k3m-bootstrap-roles ok", "[+]poststarthook/k3m-bootstrap-priority-classes ok", "[+]informer-sync ok"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("readyz does not say %q:\n%s", want, body)
		}
	}
}

// See run for the arguments: one is the API server's, the gate the scheduler's. The gate must
// have reached the API server too, before it was set up.
func TestArguments(t *testing.T) {
	resources, err := client.Discovery().ServerResourcesForGroupVersion("coordination.k8s.io/v1beta1")
	if err != nil || len(resources.APIResources) == 0 {
		t.Errorf("runtime-config: %v, %v", resources, err)
	}
	body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(body), "poststarthook/start-kube-apiserver-coordinated-leader-election-controller ok") {
		t.Errorf("feature gate: %v\n%s", err, body)
	}
}

// The test's executable is not stamped; its version must come through as it is.
func TestVersion(t *testing.T) {
	got, err := client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if want := version.Get(); got.GitVersion != want.GitVersion || got.GitCommit != want.GitCommit || got.Major != "1" || got.Minor != "37" {
		t.Errorf("version %+v, the executable says %+v", got, want)
	}
	t.Log(got)
}

func TestNamespaceGetsItsServiceAccount(t *testing.T) {
	name := "has-account"
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "default service account", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, ignore(err, apierrors.IsNotFound)
	})

	// A token of it is good, and names the issuer of this cluster.
	request := &authenticationv1.TokenRequest{}
	tok, err := client.CoreV1().ServiceAccounts(name).CreateToken(t.Context(), "default", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = tok.Status.Token
	if user := whoAmI(t, config); user.Username != "system:serviceaccount:has-account:default" {
		t.Errorf("user %+v", user)
	}

	// The namespace goes, so every group of the API answers discovery.
	if err := client.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "namespace gone", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), ignore(err, apierrors.IsNotFound)
	})
}

func ignore(err error, what func(error) bool) error {
	if what(err) {
		return nil
	}
	return err
}

func TestKubernetesServiceLeadsToTheNode(t *testing.T) {
	service, err := client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || service.Spec.ClusterIP != "10.43.0.1" {
		t.Fatalf("service %+v, %v", service.Spec, err)
	}
	slices, err := client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil || len(slices.Items) != 1 || len(slices.Items[0].Endpoints) != 1 {
		t.Fatalf("slices %+v, %v", slices, err)
	}
	if got := slices.Items[0].Endpoints[0].Addresses[0]; got != "192.0.2.10" {
		t.Errorf("leads to %s", got)
	}
}

func TestNodesGetAPodNetwork(t *testing.T) {
	if _, err := client.CoreV1().Nodes().Create(t.Context(), newNode("cidr-1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteNode(t, "cidr-1") })
	eventually(t, "pod CIDR", func(ctx context.Context) (bool, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, "cidr-1", metav1.GetOptions{})
		return err == nil && strings.HasPrefix(node.Spec.PodCIDR, "10.42.") && strings.HasSuffix(node.Spec.PodCIDR, "/24"), err
	})
}

func TestDeploymentIsScheduledAsFarAsItCan(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "unscheduled", Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"no": "node"},
			Containers:   []corev1.Container{{Name: "c", Image: "none"}},
		},
	}
	eventually(t, "pod accepted", func(ctx context.Context) (bool, error) { // the service account may be on its way
		_, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err == nil, ignore(err, apierrors.IsForbidden)
	})
	eventually(t, "scheduler's verdict", func(ctx context.Context) (bool, error) {
		got, err := client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				return true, nil
			}
		}
		return false, nil
	})
	if err := client.CoreV1().Pods("default").Delete(t.Context(), pod.Name, *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultRoles(t *testing.T) {
	if _, err := client.RbacV1().ClusterRoleBindings().Get(t.Context(), "k3m:kube-apiserver", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	// Aggregation is a controller's work: edit collects what is labelled for it.
	eventually(t, "aggregated role", func(ctx context.Context) (bool, error) {
		role, err := client.RbacV1().ClusterRoles().Get(ctx, "edit", metav1.GetOptions{})
		return err == nil && len(role.Rules) > 5, err
	})
	for _, name := range []string{"view", "edit", "admin"} {
		eventually(t, name+" reads metrics", func(ctx context.Context) (bool, error) {
			role, err := client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			return err == nil && slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
				return slices.Contains(r.APIGroups, "metrics.k8s.io") && slices.Contains(r.Verbs, "list")
			}), err
		})
	}
	for _, name := range []string{"system:node-proxier", "system:kube-scheduler", "system:controller:deployment-controller"} {
		binding, err := client.RbacV1().ClusterRoleBindings().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || len(binding.Subjects) == 0 {
			t.Errorf("%s: %+v, %v", name, binding, err)
		}
	}
	if _, err := client.RbacV1().Roles("kube-system").Get(t.Context(), "extension-apiserver-authentication-reader", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"system-node-critical", "system-cluster-critical"} {
		if _, err := client.SchedulingV1().PriorityClasses().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// A certificate that the cluster signs must work against the cluster.
func TestSignedRequestsWork(t *testing.T) {
	t.Run("of a user", func(t *testing.T) {
		certPEM, keyPEM := signedBy(t, certificatesv1.KubeAPIServerClientSignerName, pkix.Name{CommonName: "jane", Organization: []string{"team-a"}},
			nil, certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature)
		config := rest.AnonymousClientConfig(admin)
		config.CertData, config.KeyData = certPEM, keyPEM
		if user := whoAmI(t, config); user.Username != "jane" || user.Groups[0] != "team-a" {
			t.Fatalf("user %+v", user)
		}
		// And has the rights that it is given.
		jane := kubernetes.NewForConfigOrDie(config)
		if _, err := jane.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("before the binding: %v", err)
		}
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "team-a"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "team-a"}},
		}
		if _, err := client.RbacV1().RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "rights of the binding", func(ctx context.Context) (bool, error) {
			_, err := jane.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
			return err == nil, ignore(err, apierrors.IsForbidden)
		})
	})
	t.Run("of a kubelet's server", func(t *testing.T) {
		// A kubelet asks for it under its own name.
		kubelet := kubernetes.NewForConfigOrDie(join(t, "csr-1", password).config)
		certPEM, _ := signedFor(t, kubelet, certificatesv1.KubeletServingSignerName,
			pkix.Name{CommonName: "system:node:csr-1", Organization: []string{"system:nodes"}}, []string{"csr-1"},
			certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature)
		serving, err := pki.ParseCertificate(certPEM)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := serving.Verify(x509.VerifyOptions{DNSName: "csr-1", Roots: serverPool(t)}); err != nil {
			t.Errorf("the server authority did not sign it: %v", err)
		}
	})
}

func signedBy(t *testing.T, signer string, subject pkix.Name, dns []string, usages ...certificatesv1.KeyUsage) (certPEM, keyPEM []byte) {
	t.Helper()
	return signedFor(t, client, signer, subject, dns, usages...)
}

// signedFor makes a CertificateSigningRequest as one user, approves it as the administrator and
// waits for the certificate.
func signedFor(t *testing.T, as kubernetes.Interface, signer string, subject pkix.Name, dns []string, usages ...certificatesv1.KeyUsage) (certPEM, keyPEM []byte) {
	t.Helper()
	keyPEM, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	request, err := cert.MakeCSR(key, &subject, dns, nil)
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(request); block == nil {
		t.Fatal("no request")
	}
	csr, err := as.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		Spec:       certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: request, Usages: usages},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	}}
	if _, err := client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), csr.Name, csr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "certificate", func(ctx context.Context) (bool, error) {
		got, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, csr.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		certPEM = got.Status.Certificate
		return len(certPEM) > 0, nil
	})
	return certPEM, keyPEM
}
