package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Push puts an image into a registry, as url's repository: "https://host:port/v2/some/app",
// and its tag.
func Push(ctx context.Context, client *http.Client, url, tag string, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		blob, err := layer.Compressed()
		if err != nil {
			return err
		}
		err = send(ctx, client, http.MethodPost, url+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", blob)
		blob.Close()
		if err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := send(ctx, client, http.MethodPost, url+"/blobs/uploads/?digest="+name.String(), "application/octet-stream", bytes.NewReader(config)); err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	kind, err := img.MediaType()
	if err != nil {
		return err
	}
	return send(ctx, client, http.MethodPut, url+"/manifests/"+tag, string(kind), bytes.NewReader(manifest))
}

func send(ctx context.Context, client *http.Client, method, url, kind string, body io.Reader) error {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return nil
}
