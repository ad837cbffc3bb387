package imageregistry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// inProcess answers requests without a connection.
type inProcess struct{ http.Handler }

// RoundTrip hands the request over.
func (p inProcess) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	if request.ContentLength == 0 && request.Body != nil {
		request.ContentLength = -1 // what a server calls unknown
	}
	recorder := httptest.NewRecorder()
	p.ServeHTTP(recorder, request)
	return recorder.Result(), nil
}

// push puts an image into the repository at a URL. (The library's own client for that would
// bring Docker's along.)
func push(ctx context.Context, client *http.Client, url, tag string, img v1.Image) error {
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
