package availability

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/test/installation"
)

// without says what is taken out of what a controller writes.
type without struct {
	// cross: the next CA's certificate as the one before it signs it is not kept.
	cross bool
	// overlap: caBundles hold only the first CA, the one that signs. The controller is told that they hold all.
	overlap bool
}

// falsify has a client's requests and answers falsified on the way.
func falsify(config *rest.Config, without without) {
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &falsifier{next: next, without: without, whole: map[string]string{}}
	})
}

type falsifier struct {
	next    http.RoundTripper
	without without

	mu    sync.Mutex
	whole map[string]string // by path: the caBundle that was to be written, as JSON has it
}

// RoundTrip is http.RoundTripper's.
func (f *falsifier) RoundTrip(request *http.Request) (*http.Response, error) {
	path := request.URL.Path
	isCA := strings.HasSuffix(path, "/secrets") || strings.HasSuffix(path, "/secrets/"+caSecret)
	isConfiguration := strings.HasSuffix(path, "webhookconfigurations/"+installation.Configuration)
	switch {
	case f.without.cross && isCA && request.Body != nil:
		if err := rewriteRequest(request, dropCross); err != nil {
			return nil, err
		}
	case f.without.overlap && isConfiguration && request.Method == http.MethodPut:
		if err := rewriteRequest(request, func(object map[string]any) { f.cut(path, object) }); err != nil {
			return nil, err
		}
	case f.without.overlap && isConfiguration && request.Method == http.MethodGet:
		response, err := f.next.RoundTrip(request)
		if err != nil || response.StatusCode != http.StatusOK {
			return response, err
		}
		return response, rewriteResponse(response, func(object map[string]any) { f.pretend(path, object) })
	}
	return f.next.RoundTrip(request)
}

// dropCross takes the cross-signed certificate out of a Secret.
func dropCross(secret map[string]any) {
	if data, ok := secret["data"].(map[string]any); ok {
		delete(data, "next-cross.crt")
	}
}

// cut leaves the first certificate of every caBundle.
func (f *falsifier) cut(path string, configuration map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	eachClient(configuration, func(client map[string]any) {
		whole, _ := client["caBundle"].(string)
		f.whole[path] = whole
		bundle, _ := base64.StdEncoding.DecodeString(whole)
		if first, _ := pem.Decode(bundle); first != nil {
			client["caBundle"] = base64.StdEncoding.EncodeToString(pem.EncodeToMemory(first))
		}
	})
}

// pretend puts back what cut took.
func (f *falsifier) pretend(path string, configuration map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if whole := f.whole[path]; whole != "" {
		eachClient(configuration, func(client map[string]any) { client["caBundle"] = whole })
	}
}

func eachClient(configuration map[string]any, do func(map[string]any)) {
	webhooks, _ := configuration["webhooks"].([]any)
	for _, webhook := range webhooks {
		if entry, ok := webhook.(map[string]any); ok {
			if client, ok := entry["clientConfig"].(map[string]any); ok {
				do(client)
			}
		}
	}
}

func rewriteRequest(request *http.Request, change func(map[string]any)) error {
	body, err := rewrite(request.Body, change)
	if err != nil {
		return err
	}
	request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return nil
}

func rewriteResponse(response *http.Response, change func(map[string]any)) error {
	body, err := rewrite(response.Body, change)
	if err != nil {
		return err
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// rewrite changes an object in JSON.
func rewrite(body io.ReadCloser, change func(map[string]any)) ([]byte, error) {
	defer body.Close() //nolint:errcheck // it was read
	object := map[string]any{}
	decoder := json.NewDecoder(body)
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	change(object)
	return json.Marshal(object)
}
