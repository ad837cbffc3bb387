package manifests

import (
	"context"
	_ "embed" // the definition
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/core/objects"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

//go:embed manifest.yaml
var definition []byte

const (
	fieldManager = "k3m-manifests"
	// label is on every object of a file, with the file's id; fileNote says which file it is.
	label    = "k3m.io/manifest"
	fileNote = "k3m.io/manifest-file"
	// componentLabel is on the objects of components, which files can't take away from them.
	componentLabel = "k3m.io/component"

	kind       = "Manifest"
	apiVersion = nodestatus.Group + "/" + nodestatus.Version
)

var resource = schema.GroupVersionResource{Group: nodestatus.Group, Version: nodestatus.Version, Resource: "manifests"}

// The states of a Manifest.
const (
	stateApplied = "Applied"
	stateFailed  = "Failed"
	stateSkipped = "Skipped"
)

// entry is a Manifest object.
type entry struct {
	Spec   spec   `json:"spec"`
	Status status `json:"status"`
}

type spec struct {
	File string `json:"file"`
	Node string `json:"node"`
}

type status struct {
	State   string                       `json:"state"`
	Applied string                       `json:"applied"`
	Message string                       `json:"message,omitempty"`
	Objects []nodestatus.ObjectReference `json:"objects,omitempty"`
}

// nameOf is what a file's Manifest is called: as the file, where that can be an object's name.
func nameOf(file string) string {
	if len(validation.IsDNS1123Subdomain(file)) == 0 {
		return file
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, strings.ToLower(file))
	return strings.Trim(clean[:min(len(clean), 200)], "-") + "-" + idOf(file)[:8]
}

// install makes the API serve Manifests.
func (k *Keeper) install(ctx context.Context) error {
	if k.installed {
		return nil
	}
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(definition, &o.Object); err != nil {
		return fmt.Errorf("read the definition of %s: %w", kind, err)
	}
	if err := objects.Install(ctx, k.dynamic, o, fieldManager); err != nil {
		return fmt.Errorf("install the kind %s: %w", kind, err)
	}
	k.installed = true
	return nil
}

// seed reads the records of this node from the API, once. Without the kind there are none.
func (k *Keeper) seed(ctx context.Context) error {
	if k.seeded {
		return nil
	}
	list, err := k.dynamic.Resource(resource).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		k.seeded = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the record of the files: %w", err)
	}
	for _, o := range list.Items {
		var r entry
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &r); err != nil {
			return fmt.Errorf("read Manifest %s: %w", o.GetName(), err)
		}
		if r.Spec.Node == k.opts.Node {
			k.records[r.Spec.File] = &r
		}
	}
	k.seeded = true
	return nil
}

// write puts a record into the API, unless it is there.
func (k *Keeper) write(ctx context.Context, r *entry) error {
	if err := k.install(ctx); err != nil {
		return err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(r)
	if err != nil {
		return err
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetName(nameOf(r.Spec.File))
	o.SetLabels(map[string]string{label: idOf(r.Spec.File)})
	return k.objects.Apply(ctx, o)
}

// drop takes a record out of the API.
func (k *Keeper) drop(ctx context.Context, r *entry) error {
	ref := nodestatus.ObjectReference{APIVersion: apiVersion, Kind: kind, Name: nameOf(r.Spec.File)}
	_, err := k.objects.Remove(ctx, []nodestatus.ObjectReference{ref}, func(_ context.Context, o *unstructured.Unstructured) (bool, error) {
		node, _, _ := unstructured.NestedString(o.Object, "spec", "node")
		return node == k.opts.Node, nil
	})
	return err
}
